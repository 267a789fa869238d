"""The consent flow: from an address for the customer to a stored connection.

    auth_url   a consent page's address and its state (single use, 10 minutes, only its digest kept)
    callback   the browser comes back to us (the hosted road)
    exchange   the developer's own callback hands code and state over

A state is bound to workspace, mode, provider, user, redirect address and PKCE verifier. What can go
wrong has an answer of its own: `state_unknown`, `state_used`, `state_expired`, `state_foreign`,
`consent_denied`, `consent_failed`, `exchange_refused`, `vendor_unavailable`, `account_differs`.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog

from schemas.access import Caller
from schemas.errors import (
    Conflict,
    DependencyDown,
    Forbidden,
    InvalidInput,
    NeighbourhoodError,
    NotFound,
    Problem,
)
from schemas.provider import Catalogue, ProviderSpec
from schemas.settings import Secret, Settings
from token_vault import endpoints
from token_vault.account import Visit, look_up
from token_vault.apps import Apps
from token_vault.core.grants import (
    App,
    Consent,
    Granted,
    Held,
    Refused,
    authorize_url,
    code_request,
)
from token_vault.core.schedule import refresh_in_s
from token_vault.exchange import ask
from token_vault.refresher import sift_variables
from token_vault.sealing import Sealer
from token_vault.store import (
    Account,
    Connection,
    Owner,
    State,
    insert,
    lock_owner,
    look_at_state,
    owned,
    put_state,
    reconnect,
    use_state,
)
from token_vault.tokens import TokenSource
from wire.clock import mint, rng
from wire.database import Pool, connection

STATE_LIFE: Final = timedelta(minutes=10)
URL_CHARS_MAX: Final = 2_000
USER_ID_CHARS_MAX: Final = 200
# RFC 7636 §4.1: 43 to 128 characters; 48 random bytes give 64.
_VERIFIER_BYTES: Final = 48
_STATE_BYTES: Final = 32
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the developer wants of a consent.

    Attributes:
        redirect_uri: The developer's own callback; None: ours.
        return_url: Where our callback sends the browser in the end; None: to a page of ours.
        variables: What the provider must know of the account first, such as the subdomain.
        scopes: Instead of the provider's usual ones.
        vouched: The developer says who the user is; False where a browser says so itself.
    """

    redirect_uri: str | None = None
    return_url: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    scopes: tuple[str, ...] | None = None
    vouched: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """A consent page's address; the state in it is as good as a password for ten minutes."""

    url: str = field(repr=False)
    state: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Landing:
    """How a browser's way back ended: with a connection or with an error."""

    provider: str
    connection: Connection | None
    error: NeighbourhoodError | None
    return_url: str | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What the flow works with."""

    settings: Settings
    catalogue: Catalogue
    pool: Pool
    sealer: Sealer
    tokens: TokenSource
    client: httpx.AsyncClient
    apps: Apps
    clock: Callable[[], datetime]


class OAuth:
    """Runs consent flows."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def auth_url(self, owner: Owner, wish: Wish) -> Offer:
        """Begin a consent.

        Raises:
            NotFound: No such provider.
            InvalidInput: The provider has no OAuth, or variables or addresses are wrong; all told.
            Conflict: Live mode without OAuth app credentials; says what to set.
        """
        parts = self._parts
        spec = parts.catalogue.get(owner.provider)
        problems = _check(owner, wish, spec, is_production=parts.settings.is_production)
        if problems:
            raise InvalidInput(f"{problems[0].place}: {problems[0].message}.", problems=problems)
        page = endpoints.authorize_url(spec, owner.mode, wish.variables, parts.settings)
        app = await parts.apps.get(owner.workspace, spec, owner.mode)
        scopes = wish.scopes if wish.scopes is not None else spec.auth.default_scopes
        state, verifier = secrets.token_urlsafe(_STATE_BYTES), _verifier(spec)
        redirect_uri = wish.redirect_uri or self._own_callback(spec.slug)
        digest = _digest(state)
        expires_at = parts.clock() + STATE_LIFE
        async with connection(parts.pool) as on:
            sealed = None
            if verifier is not None:
                field_name = _verifier_field(digest)
                sealed = await parts.sealer.seal_text(
                    owner.workspace, field_name, Secret(verifier), on
                )
            row = State(
                owner=owner,
                redirect_uri=redirect_uri,
                return_url=wish.return_url,
                variables=wish.variables,
                scopes=scopes,
                verifier=sealed,
                expires_at=expires_at,
                vouched=wish.vouched,
            )
            await put_state(on, digest, row)
        consent = Consent(app.client_id, redirect_uri, state, tuple(scopes), verifier)
        return Offer(authorize_url(spec.auth, page, consent), state, expires_at)

    async def callback(self, provider: str, answer: Mapping[str, str]) -> Landing:
        """Take the browser back: exchange the code and store the connection.

        Args:
            provider: From the callback's path.
            answer: The query that the vendor sent: code and state, or error and state.

        Returns:
            The connection or the error, and where the browser is to go with it.
        """
        return_url = None
        try:
            state, digest = await self._find(answer.get("state", ""))
            if state.owner.provider != provider:
                raise _foreign("it belongs to another provider")
            return_url = state.return_url
            made = await self._finish(state, digest, answer)
        except NeighbourhoodError as error:
            _log.info("vault.consent_failed", provider=provider, reason=error.code)
            return Landing(provider, None, error, return_url)
        return Landing(provider, made, None, return_url)

    async def exchange(self, caller: Caller, code: str, state: str, user_id: str) -> Connection:
        """Take over what came to the developer's own callback.

        Raises:
            NotFound: `state_unknown`.
            Conflict: `state_used`, `state_expired`, `exchange_refused`, `no_account`.
            Forbidden: `state_foreign`: another workspace's, mode's or user's state.
            DependencyDown: `vendor_unavailable`, `account_unknown`.
        """
        row, digest = await self._find(state)
        if (row.owner.workspace, row.owner.mode) != (caller.workspace_id, caller.mode):
            raise _foreign("it was made with an API key of another workspace or mode")
        if row.owner.user_id != user_id:
            raise _foreign("it was made for another user_id")
        return await self._finish(row, digest, {"code": code})

    async def store_grant(
        self, owner: Owner, account: Account, held: Held, *, vouched: bool = True
    ) -> Connection:
        """Store a connection, or give the one of this owner and label its new credential.

        Raises:
            Conflict: `account_differs`: nobody vouched for the user, and another account is there.
        """
        parts = self._parts
        account = replace(account, refresh_in_s=refresh_in_s(held, rng.random()))
        async with connection(parts.pool) as on:
            await lock_owner(on, owner)
            present = await owned(on, owner)
            if present is not None and not vouched and not _is_same(present, account):
                raise Conflict(
                    "Another account is connected for this user; only the developer's server can"
                    " replace it (POST /api/v1/integrations/auth-url).",
                    code="account_differs",
                )
            connection_id = present.id if present is not None else mint("conn")
            sealed = await parts.sealer.seal_credential(
                owner.workspace, connection_id, owner.user_id, held, on
            )
            if present is not None:
                made = await reconnect(on, owner.workspace, connection_id, account, sealed)
            else:
                made = await insert(on, connection_id, owner, account, sealed)
        parts.tokens.forget(made.id)
        parts.tokens.forget_missing(owner.workspace, owner.provider)
        _log.info(
            "vault.connected",
            workspace=owner.workspace,
            connection=made.id,
            provider=owner.provider,
            again=present is not None,
        )
        return made

    def _own_callback(self, slug: str) -> str:
        return f"{self._parts.settings.gateway_url}/oauth/callback/{slug}"

    async def _find(self, state: str) -> tuple[State, bytes]:
        digest = _digest(state)
        async with connection(self._parts.pool) as on:
            found = await look_at_state(on, digest) if state else None
        if found is None:
            raise NotFound(
                "This state is not one of ours: begin again with a new address from auth-url.",
                code="state_unknown",
            )
        row, used = found
        if used:
            raise Conflict(
                "This consent was used already; a code or state works once. Begin again with a new"
                " address from auth-url.",
                code="state_used",
            )
        if row.expires_at <= self._parts.clock():
            raise Conflict(
                "This consent took longer than ten minutes and has expired; begin again with a new"
                " address from auth-url.",
                code="state_expired",
            )
        return row, digest

    async def _finish(self, state: State, digest: bytes, answer: Mapping[str, str]) -> Connection:
        async with connection(self._parts.pool) as on:
            if not await use_state(on, state.owner.workspace, digest):
                raise Conflict("This consent was used already.", code="state_used")
        spec = self._parts.catalogue.get(state.owner.provider)
        _raise_vendor_error(spec, answer)
        app = await self._parts.apps.get(state.owner.workspace, spec, state.owner.mode)
        granted = await self._exchange_code(spec, state, digest, app, answer["code"])
        known, bad = self._sift(spec, state, granted.held.variables)
        visit = Visit(
            spec=spec,
            mode=state.owner.mode,
            settings=self._parts.settings,
            app=app,
            variables=known,
            token=granted.held.access_token.reveal(),
            refresh_token=None,
        )
        whose = await look_up(self._parts.client, visit, granted)
        more, bad_too = self._sift(spec, state, whose.variables)
        self._check_account(spec, {**known, **more}, [*bad, *bad_too])
        account = Account(
            auth_kind="oauth2",
            account_id=whose.id,
            account_name=whose.name,
            variables={**known, **more},
            scopes=granted.held.scopes or tuple(state.scopes),
            expires_at=granted.held.expires_at,
        )
        return await self.store_grant(state.owner, account, granted.held, vouched=state.vouched)

    async def _exchange_code(
        self, spec: ProviderSpec, state: State, digest: bytes, app: App, code: str
    ) -> Granted:
        parts, owner = self._parts, state.owner
        verifier = None
        if state.verifier is not None:
            opened = await parts.sealer.open_text(
                owner.workspace, _verifier_field(digest), state.verifier
            )
            verifier = opened.reveal()
        request = code_request(
            spec.auth, app, code=code, redirect_uri=state.redirect_uri, verifier=verifier
        )
        url = endpoints.token_url(spec, owner.mode, state.variables, parts.settings)
        result = await ask(parts.client, url, spec.auth, request, parts.clock)
        if isinstance(result, Refused):
            raise _refused(spec, result)
        return result

    def _sift(
        self, spec: ProviderSpec, state: State, told: Mapping[str, str]
    ) -> tuple[dict[str, str], list[str]]:
        good, bad = sift_variables(spec, state.owner.mode, told, self._parts.settings)
        return {**state.variables, **good}, bad

    def _check_account(
        self, spec: ProviderSpec, variables: Mapping[str, str], bad: list[str]
    ) -> None:
        needed = [
            name
            for name, variable in spec.auth.variables.items()
            if variable.default is None and name not in variables and name not in bad
        ]
        if bad or needed:
            names = ", ".join([*bad, *needed])
            raise DependencyDown(
                f"{spec.name} did not tell what is needed of the account ({names}), or something"
                " that cannot be right; it was not connected.",
                code="bad_account",
            )


def _is_same(present: Connection, account: Account) -> bool:
    return present.account_id is not None and present.account_id == account.account_id


def check_user_and_urls(
    user_id: str, urls: Mapping[str, str | None], *, is_production: bool
) -> list[Problem]:
    """Check a developer's id of a customer, and addresses that browsers are to be sent to.

    Args:
        user_id: The id.
        urls: By the name of their field; None: not given.
        is_production: Then plain http is for localhost only.
    """
    problems = []
    if not 0 < len(user_id) <= USER_ID_CHARS_MAX:
        text = f"must have 1 to {USER_ID_CHARS_MAX} characters"
        problems.append(Problem("user_id", text, "Give your own id of this customer.", "bad_value"))
    for place, url in urls.items():
        if url is not None and not _is_web_address(url, is_production=is_production):
            mend = "Give an absolute https:// address without a fragment (http:// on localhost)."
            problems.append(Problem(place, "is not an address we can send to", mend, "bad_url"))
    return problems


def _check(owner: Owner, wish: Wish, spec: ProviderSpec, *, is_production: bool) -> list[Problem]:
    problems = spec.auth.check_variables(wish.variables)
    urls = {"redirect_uri": wish.redirect_uri, "return_url": wish.return_url}
    problems += check_user_and_urls(owner.user_id, urls, is_production=is_production)
    for scope in wish.scopes or ():
        if not scope or any(character.isspace() for character in scope):
            problems.append(Problem("scopes", f"{scope!r} is not a scope", "", "bad_value"))
    return problems


def _is_web_address(url: str, *, is_production: bool) -> bool:
    try:
        parts = urlsplit(url)
        local = parts.hostname in _LOCAL
    except ValueError:
        return False
    if len(url) > URL_CHARS_MAX or parts.fragment or "#" in url or "@" in parts.netloc:
        return False
    if any(c.isspace() or ord(c) < 0x20 or c == "\\" for c in url) or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (local or not is_production))


def _verifier(spec: ProviderSpec) -> str | None:
    if spec.auth.pkce == "unsupported":
        return None
    return secrets.token_urlsafe(_VERIFIER_BYTES)


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()


def _verifier_field(digest: bytes) -> str:
    return f"verifier/{digest.hex()}"


def _foreign(why: str) -> Forbidden:
    return Forbidden(f"This state cannot be used here: {why}.", code="state_foreign")


def _raise_vendor_error(spec: ProviderSpec, answer: Mapping[str, str]) -> None:
    """Raise what the vendor sent instead of a code (RFC 6749 §4.1.2.1)."""
    error = answer.get("error")
    if error == "access_denied":
        raise Conflict(
            f"The consent at {spec.name} was declined, so nothing was connected. Whoever wants to"
            " connect begins again and allows it.",
            code="consent_denied",
        )
    if error or not answer.get("code"):
        raise Conflict(
            f"{spec.name} sent the customer back without a code"
            f" ({(error or 'no reason given')[:100]}).",
            code="consent_failed",
            detail=answer.get("error_description", "")[:300],
        )


def _refused(spec: ProviderSpec, refused: Refused) -> NeighbourhoodError:
    if refused.kind == "unavailable":
        return DependencyDown(
            f"{spec.name} does not answer as it should ({refused.code}), so nothing was connected;"
            " connect again in a while.",
            code="vendor_unavailable",
            detail=refused.message,
        )
    return Conflict(
        f"{spec.name} did not take the code ({refused.code}): it works once and for some minutes."
        " Begin again; if that fails too, check the OAuth app's id, secret and redirect address.",
        code="exchange_refused",
        detail=refused.message,
    )
