"""What goes over the vault's API: bodies and answers."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from token_vault.core.addresses import URL_CHARS_MAX, USER_ID_CHARS_MAX
from token_vault.store import PAGE_MAX

VARIABLES_MAX: Final = 10
SCOPES_MAX: Final = 100
_SHORT: Final = Field(min_length=1, max_length=200)
# States and codes; vendors' codes reach a few hundred characters.
_OPAQUE: Final = Field(min_length=1, max_length=4_096)
_USER: Final = Field(min_length=1, max_length=USER_ID_CHARS_MAX)
_LABEL: Final = Field(max_length=100)
PROVIDER: Final = Field(min_length=1, max_length=64, examples=["slack"])
Variables = Annotated[
    dict[str, Annotated[str, Field(max_length=500)]], Field(max_length=VARIABLES_MAX)
]
Credentials = Annotated[
    dict[str, Annotated[str, Field(max_length=10_000)]],
    Field(max_length=VARIABLES_MAX, examples=[{"bot_token": "xoxb-…"}]),
]
Scopes = Annotated[list[Annotated[str, _SHORT]], Field(max_length=SCOPES_MAX)]


class Body(BaseModel):
    """A body takes nothing that it does not know."""

    model_config = ConfigDict(extra="forbid")


class AuthUrlBody(Body):
    """Who is to connect what."""

    workspace_id: Annotated[str, Field(max_length=64)] | None = None
    provider: Annotated[str, PROVIDER]
    user_id: Annotated[str, _USER] = Field(description="Your own id of the customer who connects.")
    label: Annotated[str, _LABEL] = Field(
        "", description="Tells several accounts of one provider and user apart."
    )
    variables: Variables = Field(
        default_factory=dict,
        description="What the provider must know of the account first, such as the subdomain.",
        examples=[{"subdomain": "acme"}],
    )
    redirect_uri: str | None = Field(
        None, description="Your own callback; left out: ours, and the connection is made there."
    )
    return_url: str | None = Field(
        None, description="Where our callback sends the browser in the end."
    )
    scopes: Scopes | None = Field(
        None, description="Instead of the scopes that the provider's actions need."
    )
    require_all_scopes: bool = Field(
        default=False,
        description="Connect nothing where the customer grants less than was asked for.",
    )


class ReconnectBody(Body):
    """How a connection is to be connected again."""

    variables: Variables = Field(
        default_factory=dict, description="Where they are to be others than the connection's."
    )
    redirect_uri: str | None = None
    return_url: str | None = None
    scopes: Scopes | None = Field(None, description="Left out: those that were asked for before.")
    require_all_scopes: bool = False
    allow_other_account: bool = Field(
        default=False, description="Take another account than the one that the connection is of."
    )
    credentials: Credentials | None = Field(
        None, description="New credentials, checked and stored at once; instead of a consent."
    )
    kind: str | None = Field(None, max_length=40, description="As when connecting.")


class ConnectBody(Body):
    """The same from a customer's browser."""

    workspace_id: Annotated[str, Field(min_length=1, max_length=64)]
    user_id: Annotated[str, _USER]
    mode: Annotated[str, Field(pattern="^(live|test)$")] = "live"
    label: Annotated[str, _LABEL] = ""
    variables: Variables = Field(default_factory=dict)
    return_url: str | None = None


class ExchangeBody(Body):
    """What came to the developer's own callback."""

    code: Annotated[str, _OPAQUE] | None = Field(
        None, description="The vendor's; not needed where an account is chosen."
    )
    state: Annotated[str, _OPAQUE]
    user_id: Annotated[str, _USER]
    account_id: Annotated[str, _SHORT] | None = Field(
        None, description="After `account_choice`: which account the connection is to be of."
    )


class CredentialsBody(Body):
    """Credentials that the customer entered."""

    provider: Annotated[str, PROVIDER]
    user_id: Annotated[str, _USER]
    label: Annotated[str, _LABEL] = ""
    credentials: Credentials
    variables: Variables = Field(
        default_factory=dict,
        description="What the provider must know of the account besides, such as the subdomain.",
    )
    kind: str | None = Field(
        None,
        max_length=40,
        description="Which way to connect, of several; left out: told by the fields.",
        examples=["bot_token"],
    )


class LabelBody(Body):
    """A connection's other label."""

    label: Annotated[str, _LABEL]


class OwnAppBody(Body):
    """A workspace's own OAuth app."""

    client_id: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[\x21-\x7e]+$")]
    client_secret: Annotated[str, Field(min_length=1, max_length=2_000)] | None = Field(
        None, description="Sealed, and never readable again. Left out: an app without a secret."
    )
    scopes: Scopes | None = Field(
        None, description="What consents ask for, instead of the provider's usual scopes."
    )
    redirect_uri: Annotated[str, Field(max_length=URL_CHARS_MAX)] | None = Field(
        None, description="As registered at the vendor; left out: our own callback."
    )


class OwnAppAnswer(BaseModel):
    """A workspace's own OAuth app; never its secret."""

    provider: str
    client_id: str
    has_secret: bool
    scopes: list[str] | None
    redirect_uri: str = Field(description="Register exactly this one at the vendor.")
    set_by: str = Field(description="The API key or session that set it.")
    set_at: datetime


class AuthUrlAnswer(BaseModel):
    """Send the customer's browser to `url` before `expires_at`."""

    url: str
    state: str
    expires_at: datetime


class ConnectAnswer(BaseModel):
    """Send the customer's browser to `authUrl`."""

    authUrl: str  # noqa: N815 - the name that the client-side flow promises


class ConnectionAnswer(BaseModel):
    """One account of one end customer; never its credential."""

    id: str
    workspace_id: str
    mode: str
    provider: str
    user_id: str
    label: str
    state: str
    auth_kind: str = Field(description="`oauth2`, or the kind of what was entered.")
    account_id: str | None
    account_name: str | None
    variables: dict[str, str]
    scopes: list[str] = Field(description="What was granted.")
    missing_scopes: list[str] = Field(description="What was asked for and not granted.")
    client_id: str | None = Field(description="The OAuth app that it was made with.")
    expires_at: datetime | None
    last_refresh_at: datetime | None
    last_error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class ReconnectAnswer(BaseModel):
    """Where to send the customer's browser; or the connection, where credentials were given."""

    url: str | None
    state: str | None
    expires_at: datetime | None
    connection: ConnectionAnswer | None


class ConnectionPage(BaseModel):
    """Connections, newest first; give `next_cursor` as `cursor` for more."""

    items: list[ConnectionAnswer]
    next_cursor: str | None


class DisconnectAnswer(BaseModel):
    """A receipt: it is deleted here, whatever became of it at the vendor."""

    id: str
    provider: str
    user_id: str
    label: str
    account_id: str | None
    account_name: str | None
    scopes: list[str]
    deleted_at: datetime
    vendor: str = Field(description="`revoked`, `not_offered`, `in_use` or `failed`.")
    revoked_at: datetime | None = Field(description="When the vendor confirmed it.")


class ConnectionFilter(Body):
    """Which connections to list."""

    provider: Annotated[str, _SHORT] | None = None
    user_id: Annotated[str, Field(max_length=USER_ID_CHARS_MAX)] | None = None
    state: Annotated[str, Field(pattern="^(active|refreshing|degraded|needs_reauth)$")] | None = (
        None
    )
    cursor: Annotated[str, Field(pattern="^(conn_[0-9a-z]{26})?$")] = ""
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX - 1)] = 50
