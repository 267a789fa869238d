"""How an account of a provider is connected: the `auth` section of its file, read.

The vault works from these alone; nothing here is specific to a vendor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from schemas.errors import Problem
from schemas.expression import Condition, Template, Tree

IN_URL: Final = "{credential}"
"""Stands in addresses where the credential does, until the moment when they are sent; as the name
in `token_header` it says that it goes there and into no header."""


@dataclass(frozen=True, slots=True)
class AccountVariable:
    """A fact about one customer's account that URLs need: subdomain, instance_url, cloudid.

    Attributes:
        source: Who tells it: `customer` before the consent, `token` (the token answer), `account`
            (the look-up after the grant) or `fixed` (always the default).
        pattern: What a value must match as a whole; it guards the host that a token is sent to.
        default: Taken where nobody told another value.
        help: What to enter, for the customer.
    """

    name: str
    source: Literal["customer", "token", "account", "fixed"]
    pattern: str | None = None
    default: str | None = None
    help: str = ""
    _matches: Callable[[str], object] | None = field(default=None, repr=False, compare=False)

    def accepts(self, value: str) -> bool:
        """Say whether a value is one that this variable may have."""
        return self._matches is None or self._matches(value) is not None


@dataclass(frozen=True, slots=True)
class HttpStep:
    """A request of the connection flow: revocation or the account look-up.

    Attributes:
        client_auth: How our app identifies itself there, `none` where the token header does.
    """

    method: str
    url: Template
    headers: Mapping[str, Template] = field(default_factory=dict)
    query: Tree | None = None
    form: Tree | None = None
    json: Tree | None = None
    client_auth: Literal["basic", "post", "none"] = "none"
    token_header: bool = True

    @property
    def names_app(self) -> bool:
        """Whether our app's id or secret is a part of it."""
        parts = (self.url, *self.headers.values(), self.query, self.form, self.json)
        paths = (path for part in parts if part is not None for path in part.paths)
        own = any(path.root in ("client_id", "client_secret") for path in paths)
        return own or self.client_auth != "none"


@dataclass(frozen=True, slots=True)
class AccountStep:
    """The look-up after the grant: which account was connected, and its variables.

    Templates read `body` (the answer), `token` (the token answer) and `connection`.

    Attributes:
        each: Path of the list of accounts where one grant can cover several, else None; the other
            templates then read one entry of it as `body`.
        each_when: Holds for those entries that are accounts of this provider; None: for all.
    """

    request: HttpStep | None
    id: Template | None
    name: Template | None
    variables: Mapping[str, Template]
    each: Template | None = None
    each_when: Condition | None = None
    error_when: Condition | None = None


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """How a token endpoint's answer is read; templates read `body` (and `status`, `headers`)."""

    access_token: Template
    refresh_token: Template
    expires_in: Template
    scope: Template
    variables: Mapping[str, Template]
    error_when: Condition | None
    error_code: Template
    error_message: Template
    dead_when: Condition | None


@dataclass(frozen=True, slots=True)
class Credential:
    """A field that the customer enters where the provider is connected without a consent.

    Attributes:
        secret: Not to be shown while it is typed.
        pattern: What a value must match as a whole, where it can be told.
    """

    name: str
    secret: bool
    help: str
    required: bool = True
    pattern: str | None = None
    _matches: Callable[[str], object] | None = field(default=None, repr=False, compare=False)

    def accepts(self, value: str) -> bool:
        """Say whether a value is one that this field may have."""
        return self._matches is None or self._matches(value) is not None


@dataclass(frozen=True, slots=True)
class Signing:
    """What AWS Signature Version 4 signs requests with; templates over credentials, connection.

    Attributes:
        session_token: Only with temporary keys.
    """

    service: str
    region: Template
    access_key_id: Template
    secret_access_key: Template
    session_token: Template | None


AuthKind = Literal[
    "oauth2", "api_key", "bot_token", "basic", "aws_sigv4", "client_credentials", "none"
]


@dataclass(frozen=True, slots=True)
class AuthSpec:
    """How an account is connected; `kind` tells which of the parts are there.

    Attributes:
        refresh: `rotating` (each refresh answers a new refresh token and kills the old one),
            `reusable`, or `none`.
        access_token_seconds: Life of an access token where the answer does not tell it.
        token_header: Name and value of the header that carries the token in each call.
            Templates over token, credentials, basic and connection.
        token_params: Extra fixed fields of the code exchange; `refresh_params` of the refresh.
        token_headers: Headers that the token endpoint wants besides.
        proofs: Name and value of headers that some requests carry instead of `token_header`.
        token_json: Body of a sign-in of the vendor's own, which stands in for client credentials;
            a template over credentials and connection.
        credentials: What the customer enters; none for a consent.
        revoke_ends: What a revocation ends: this `grant`, or all of the `account` with this app.
        basic: User and password of HTTP basic; encoded they are `${basic}`.
        signing: What requests are signed with, instead of a token header.
        alternatives: Other ways to connect, each of another kind; none of them has alternatives.
    """

    kind: AuthKind
    authorize_url: Template | None
    token_url: Template | None
    refresh_url: Template | None
    revoke: HttpStep | None
    variables: Mapping[str, AccountVariable]
    scope_separator: str
    scope_param: str
    default_scopes: tuple[str, ...]
    authorize_params: Mapping[str, str]
    pkce: Literal["required", "supported", "unsupported"]
    client_auth: Literal["basic", "post", "none"]
    token_body: Literal["form", "json"]
    token_params: Mapping[str, Any]
    refresh_params: Mapping[str, Any]
    refresh: Literal["rotating", "reusable", "none"]
    access_token_seconds: int | None
    token: TokenAnswer
    account: AccountStep | None
    token_header: tuple[str, Template]
    credentials: tuple[Credential, ...]
    variable_defaults: Mapping[str, str]
    revoke_ends: Literal["grant", "account"] = "grant"
    basic: tuple[Template, Template] | None = None
    signing: Signing | None = None
    alternatives: tuple["AuthSpec", ...] = ()
    token_headers: Mapping[str, str] = field(default_factory=dict)
    proofs: Mapping[str, tuple[str, Template]] = field(default_factory=dict)
    token_json: Tree | None = None

    @property
    def ways(self) -> tuple["AuthSpec", ...]:
        """Every way to connect, the usual one first."""
        return (self, *self.alternatives)

    @property
    def ways_by_consent(self) -> tuple["AuthSpec", ...]:
        """The ways that lead over a consent page."""
        return tuple(way for way in self.ways if way.authorize_url is not None)

    @property
    def entered(self) -> tuple["AuthSpec", ...]:
        """The ways for which the customer enters credentials."""
        return tuple(way for way in self.ways if way.credentials)

    def check_variables(self, given: Mapping[str, str]) -> list[Problem]:
        """Check the variables that the customer tells before the consent.

        Args:
            given: Names and values, such as `{"subdomain": "acme"}`.

        Returns:
            One problem for each that is missing, unknown or does not match its pattern.
        """
        problems = []
        asked = {name: v for name, v in self.variables.items() if v.source == "customer"}
        for name in given:
            if name not in asked:
                mend = f"Known: {', '.join(asked)}." if asked else "This provider takes none."
                problems.append(Problem(name, f"{name} is not a variable", mend, "unknown_field"))
        for name, variable in asked.items():
            value = given.get(name, variable.default)
            if value is None:
                problems.append(Problem(name, f"{name} is missing", variable.help, "missing"))
            elif not variable.accepts(value):
                message = f"{value!r} is not a {name}"
                problems.append(Problem(name, message, variable.help, "bad_value"))
        return problems
