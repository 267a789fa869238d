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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
import orjson
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
from token_vault.account import Visit, Whose, look_up
from token_vault.apps import Apps
from token_vault.core.addresses import check_user_and_urls
from token_vault.core.grants import (
    App,
    Consent,
    Granted,
    Held,
    Refused,
    authorize_url,
    code_request,
    from_stored,
    missing_scopes,
    to_stored,
)
from token_vault.exchange import ask
from token_vault.keeper import Keeper
from token_vault.sealing import Sealer
from token_vault.states import (
    State,
    Terms,
    keep_pending,
    look_at_state,
    put_state,
    take_pending,
    use_state,
)
from token_vault.store import Account, Connection, Owner
from token_vault.variables import accept_variables, require_whole
from wire.database import Pool, connection

STATE_LIFE: Final = timedelta(minutes=10)
# RFC 7636 §4.1: 43 to 128 characters; 48 random bytes give 64.
_VERIFIER_BYTES: Final = 48
_STATE_BYTES: Final = 32
# Of what one grant covers; nobody reads a longer list.
CHOICES_MAX: Final = 100
_log = structlog.get_logger("vault")


class AccountChoice(Conflict):
    """The grant covers several accounts; `problems` name them, `place` is the id of one."""

    default_code = "account_choice"

    def __init__(self, name: str, choices: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(
            f"{name} granted access to {len(choices)} accounts. Choose one: send the same state"
            " once more within ten minutes, with its id as account_id."
        )
        self.choices = tuple(choices)
        self.problems = tuple(
            Problem(str(item["id"]), str(item["name"] or item["id"]), "", "choice")
            for item in choices
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """What the developer wants of a consent.

    Attributes:
        redirect_uri: The developer's own callback; None: ours.
        return_url: Where our callback sends the browser in the end; None: to a page of ours.
        variables: What the provider must know of the account first, such as the subdomain.
        scopes: Instead of the provider's usual ones.
        terms: What making the connection has to keep to.
    """

    redirect_uri: str | None = None
    return_url: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    scopes: tuple[str, ...] | None = None
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True)
class Offer:
    """A consent page's address; the state in it is as good as a password for ten minutes."""

    url: str = field(repr=False)
    state: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Landing:
    """How a browser's way back ended: with a connection or with an error.

    An `AccountChoice` is not the end yet: the browser comes once more, with `account` chosen.
    """

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
    keeper: Keeper
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
            NotFound: No such provider, or it was shut down.
            InvalidInput: The provider has no OAuth, or variables or addresses are wrong; all told.
            Conflict: Live mode without OAuth app credentials; says what to set.
        """
        parts = self._parts
        spec = self._spec(owner.provider)
        spec.require_open(owner.mode)
        problems = _check(owner, wish, spec, is_production=parts.settings.is_production)
        if problems:
            raise InvalidInput(f"{problems[0].place}: {problems[0].message}.", problems=problems)
        page = endpoints.authorize_url(spec, owner.mode, wish.variables, parts.settings)
        app = await parts.apps.get(owner.workspace, spec, owner.mode)
        usual, redirect_uri = spec.auth.default_scopes, self._own_callback(spec.slug)
        own = await parts.apps.look(owner.workspace, spec) if owner.mode == "live" else None
        if own is not None:
            usual = tuple(own.scopes) if own.scopes is not None else usual
            redirect_uri = own.redirect_uri or redirect_uri
        scopes = wish.scopes if wish.scopes is not None else usual
        redirect_uri = wish.redirect_uri or redirect_uri
        state, verifier = secrets.token_urlsafe(_STATE_BYTES), _verifier(spec)
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
                terms=wish.terms,
                client_id=app.client_id,
            )
            await put_state(on, digest, row)
        consent = Consent(app.client_id, redirect_uri, state, tuple(scopes), verifier)
        return Offer(authorize_url(spec.auth, page, consent), state, expires_at)

    async def callback(self, provider: str, answer: Mapping[str, str]) -> Landing:
        """Take the browser back: exchange the code and store the connection.

        Args:
            provider: From the callback's path.
            answer: The query that the vendor sent: code and state, or error and state; or ours,
                once more: state and the chosen `account`.

        Returns:
            The connection or the error, and where the browser is to go with it.
        """
        return_url = None
        try:
            choosing = bool(answer.get("account"))
            state, digest = await self._find(answer.get("state", ""), choosing=choosing)
            if state.owner.provider != provider:
                raise _foreign("it belongs to another provider")
            return_url = state.return_url
            made = await self._finish(state, digest, answer)
        except AccountChoice as choice:
            return Landing(provider, None, choice, return_url)
        except NeighbourhoodError as error:
            _log.info("vault.consent_failed", provider=provider, reason=error.code)
            return Landing(provider, None, error, return_url)
        return Landing(provider, made, None, return_url)

    async def exchange(
        self, caller: Caller, code: str, state: str, user_id: str, account_id: str | None = None
    ) -> Connection:
        """Take over what came to the developer's own callback.

        Args:
            caller: Whose key it is.
            code: The vendor's; not looked at where an account is chosen.
            state: As given with the address.
            user_id: For whom the consent was begun.
            account_id: Which account of a grant that covers several.

        Raises:
            NotFound: `state_unknown`.
            AccountChoice: The grant covers several accounts; come again with one's id.
            Conflict: `state_used`, `state_expired`, `exchange_refused`, `no_account`,
                `account_differs`, `scopes_missing`.
            Forbidden: `state_foreign`: another workspace's, mode's or user's state.
            DependencyDown: `vendor_unavailable`, `account_unknown`.
        """
        row, digest = await self._find(state, choosing=account_id is not None)
        if (row.owner.workspace, row.owner.mode) != (caller.workspace_id, caller.mode):
            raise _foreign("it was made with an API key of another workspace or mode")
        if row.owner.user_id != user_id:
            raise _foreign("it was made for another user_id")
        return await self._finish(row, digest, {"code": code, "account": account_id or ""})

    def _spec(self, slug: str) -> ProviderSpec:
        return self._parts.catalogue.get(slug).connected_by("oauth2")

    def _own_callback(self, slug: str) -> str:
        return f"{self._parts.settings.gateway_url}/oauth/callback/{slug}"

    async def _find(self, state: str, *, choosing: bool) -> tuple[State, bytes]:
        digest = _digest(state)
        async with connection(self._parts.pool) as on:
            found = await look_at_state(on, digest) if state else None
        if found is None:
            raise NotFound(
                "This state is not one of ours: begin again with a new address from auth-url.",
                code="state_unknown",
            )
        row, used = found
        if used and not (choosing and row.pending is not None):
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
        spec = self._spec(state.owner.provider)
        if state.pending is not None:
            return await self._chosen(spec, state, digest, answer.get("account", ""))
        async with connection(self._parts.pool) as on:
            if not await use_state(on, state.owner.workspace, digest):
                raise Conflict("This consent was used already.", code="state_used")
        _raise_vendor_error(spec, answer)
        app = await self._parts.apps.get(
            state.owner.workspace, spec, state.owner.mode, state.client_id
        )
        granted = await self._exchange_code(spec, state, digest, app, answer["code"])
        state = replace(state, client_id=app.client_id)
        _require_scopes(spec, state, granted.held)
        known = self._accept(spec, state, state.variables, granted.held.variables)
        visit = Visit(spec, state.owner.mode, self._parts.settings, app, known, granted.held)
        found = await look_up(self._parts.client, visit, granted.answer)
        whose = await self._choose(spec, state, digest, granted.held, known, found)
        return await self._keep(spec, state, granted.held, known, whose)

    async def _choose(
        self,
        spec: ProviderSpec,
        state: State,
        digest: bytes,
        held: Held,
        known: Mapping[str, str],
        found: Sequence[Whose],
    ) -> Whose:
        """Take the only account, or the one that is connected; else keep the grant and ask.

        Raises:
            AccountChoice: Somebody has to choose.
        """
        if len(found) == 1:
            return found[0]
        present = await self._parts.keeper.present(state.owner, state.terms)
        for whose in found:
            if present is not None and whose.id == present.account_id:
                return whose
        choices = [
            {"id": whose.id or str(place), "name": whose.name, "variables": dict(whose.variables)}
            for place, whose in enumerate(found[:CHOICES_MAX])
        ]
        parts, workspace = self._parts, state.owner.workspace
        kept = {
            "held": to_stored(held).decode(),
            "scopes": held.scopes,
            "known": dict(known),
            "client_id": state.client_id,
        }
        text = Secret(orjson.dumps(kept).decode())
        async with connection(parts.pool) as on:
            sealed = await parts.sealer.seal_text(workspace, _pending_field(digest), text, on)
            until = parts.clock() + STATE_LIFE
            await keep_pending(on, workspace, digest, sealed, choices, until)
        raise AccountChoice(spec.name, choices)

    async def _chosen(
        self, spec: ProviderSpec, state: State, digest: bytes, account_id: str
    ) -> Connection:
        """Finish with one of the accounts that the grant covers."""
        choice = next((item for item in state.choices if item["id"] == account_id), None)
        if choice is None or state.pending is None:
            raise AccountChoice(spec.name, state.choices)
        parts, workspace = self._parts, state.owner.workspace
        opened = await parts.sealer.open_text(workspace, _pending_field(digest), state.pending)
        async with connection(parts.pool) as on:
            if not await take_pending(on, workspace, digest):
                raise Conflict("This consent was used already.", code="state_used")
        kept = orjson.loads(opened.reveal())
        held = from_stored(kept["held"].encode(), kept["scopes"])
        whose = Whose(choice["id"], choice["name"], choice["variables"])
        state = replace(state, client_id=kept["client_id"])
        return await self._keep(spec, state, held, kept["known"], whose)

    async def _keep(
        self,
        spec: ProviderSpec,
        state: State,
        held: Held,
        known: Mapping[str, str],
        whose: Whose,
    ) -> Connection:
        variables = self._accept(spec, state, known, whose.variables)
        require_whole(spec, variables)
        account = Account(
            auth_kind="oauth2",
            account_id=whose.id,
            account_name=whose.name,
            variables=variables,
            scopes=held.scopes or tuple(state.scopes),
            expires_at=held.expires_at,
            asked_scopes=state.scopes,
            client_id=state.client_id,
        )
        return await self._parts.keeper.store(state.owner, account, held, state.terms)

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

    def _accept(
        self, spec: ProviderSpec, state: State, known: Mapping[str, str], told: Mapping[str, str]
    ) -> dict[str, str]:
        return accept_variables(spec, state.owner.mode, known, told, self._parts.settings)


def _check(owner: Owner, wish: Wish, spec: ProviderSpec, *, is_production: bool) -> list[Problem]:
    problems = spec.auth.check_variables(wish.variables)
    urls = {"redirect_uri": wish.redirect_uri, "return_url": wish.return_url}
    problems += check_user_and_urls(owner.user_id, urls, is_production=is_production)
    return problems + check_scopes(wish.scopes)


def check_scopes(scopes: Sequence[str] | None) -> list[Problem]:
    """Name what cannot be a scope."""
    return [
        Problem("scopes", f"{scope!r} is not a scope", "", "bad_value")
        for scope in scopes or ()
        if not scope or any(character.isspace() for character in scope)
    ]


def _verifier(spec: ProviderSpec) -> str | None:
    if spec.auth.pkce == "unsupported":
        return None
    return secrets.token_urlsafe(_VERIFIER_BYTES)


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()


def _verifier_field(digest: bytes) -> str:
    return f"verifier/{digest.hex()}"


def _pending_field(digest: bytes) -> str:
    return f"pending/{digest.hex()}"


def _require_scopes(spec: ProviderSpec, state: State, held: Held) -> None:
    """Refuse less than was asked for, where the developer said so.

    The grant is not taken back: at some vendors that would end others of the same account.
    """
    missing = missing_scopes(state.scopes, held.scopes)
    if missing and state.terms.require_all_scopes:
        raise Conflict(
            f"{spec.name} granted less than was asked for: {', '.join(missing)} is missing, so"
            " nothing was connected. Begin again and allow everything.",
            code="scopes_missing",
        )


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
