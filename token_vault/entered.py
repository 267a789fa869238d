"""Connects with what a customer enters: API key, bot token, user and password, AWS keys, a client.

Nothing is stored that the vendor was not seen to take: client credentials get a token first, all
others are tried with the provider's account step, which costs one cheap call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from schemas.errors import DependencyDown, InvalidInput, Problem
from schemas.provider import ProviderSpec
from schemas.provider_auth import AuthSpec, Credential
from schemas.settings import Secret
from token_vault import endpoints
from token_vault.account import Visit, look_up, not_taken
from token_vault.core.grants import Granted, Held, Refused, client_request
from token_vault.exchange import ask
from token_vault.oauth import Parts
from token_vault.states import Terms
from token_vault.store import Account, Connection, Owner
from token_vault.variables import accept_variables, require_whole

# A pasted credential is longer than this by mistake only.
ENTERED_CHARS_MAX: Final = 8_192


@dataclass(frozen=True, slots=True)
class Entry:
    """What was entered.

    Attributes:
        fields: By the names that the provider declares.
        variables: What it must know of the account besides, such as the subdomain.
        kind: Of the way to connect, where the provider has several; None: told by the fields.
    """

    fields: Mapping[str, str]
    variables: Mapping[str, str]
    kind: str | None = None


class Entered:
    """Checks and stores credentials that were entered."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def connect(self, owner: Owner, entry: Entry, terms: Terms) -> Connection:
        """Check credentials at the vendor and store them.

        Raises:
            NotFound: No such provider, or it was shut down.
            InvalidInput: The provider takes none, fields are missing or unknown, or
                `credentials_refused`: the vendor does not take them.
            DependencyDown: `vendor_unavailable`: it cannot be asked just now.
            Conflict: `account_differs`.
        """
        parts = self._parts
        usual = parts.catalogue.get(owner.provider)
        usual.require_open(owner.mode)
        way = _way(usual, entry)
        spec = usual.connected_by(way.kind)
        fields = _checked(spec, entry)
        held = Held(Secret(""), None, parts.clock(), None, fields=fields)
        answer: Mapping[str, Any] = {}
        if way.kind == "client_credentials":
            granted = await self._token(spec, owner.mode, entry.variables, fields)
            held, answer = replace(granted.held, fields=fields), granted.answer
        known = self._accept(spec, owner.mode, entry.variables, held.variables)
        visit = Visit(spec, owner.mode, parts.settings, None, known, held)
        whose = (await look_up(parts.client, visit, answer))[0]
        variables = self._accept(spec, owner.mode, known, whose.variables)
        require_whole(spec, variables)
        account = Account(
            auth_kind=way.kind,
            account_id=whose.id,
            account_name=whose.name,
            variables=variables,
            scopes=held.scopes,
            expires_at=held.expires_at,
        )
        return await parts.keeper.store(owner, account, held, terms)

    def _accept(
        self, spec: ProviderSpec, mode: str, known: Mapping[str, str], told: Mapping[str, str]
    ) -> dict[str, str]:
        return accept_variables(spec, mode, known, told, self._parts.settings)

    async def _token(
        self,
        spec: ProviderSpec,
        mode: str,
        variables: Mapping[str, str],
        fields: Mapping[str, Secret],
    ) -> Granted:
        parts = self._parts
        url = endpoints.token_url(spec, mode, variables, parts.settings)
        request = client_request(spec.auth, fields, variables)
        answer = await ask(parts.client, url, spec.auth, request, parts.clock)
        if isinstance(answer, Granted):
            return answer
        if answer.kind == "unavailable":
            raise _unavailable(spec, answer)
        raise not_taken(spec, answer.code)


def _unavailable(spec: ProviderSpec, refused: Refused) -> DependencyDown:
    return DependencyDown(
        f"{spec.name} cannot be asked whether these credentials work ({refused.code}), so nothing"
        " was stored; try again in a while.",
        code="vendor_unavailable",
        detail=refused.message,
    )


def _way(spec: ProviderSpec, entry: Entry) -> AuthSpec:
    """Find the way to connect that is meant."""
    ways = spec.auth.entered
    if not ways:
        raise InvalidInput(
            f"{spec.name} is connected by OAuth; call POST /api/v1/integrations/auth-url.",
            code="credentials_not_taken",
        )
    if entry.kind is not None:
        for way in ways:
            if way.kind == entry.kind:
                return way
        known = ", ".join(way.kind for way in ways)
        problem = Problem("kind", "is not a way to connect it", f"Known: {known}.", "unknown_kind")
        raise InvalidInput(f"kind {problem.message}.", problems=[problem])
    given = set(entry.fields)
    for way in ways:
        if given <= {item.name for item in way.credentials}:
            return way
    return ways[0]


def _checked(spec: ProviderSpec, entry: Entry) -> dict[str, Secret]:
    declared = {item.name: item for item in spec.auth.credentials}
    known = ", ".join(declared)
    problems = [
        Problem(f"credentials.{name}", "is not a known field", f"Known: {known}.", "unknown_field")
        for name in entry.fields
        if name not in declared
    ]
    found: dict[str, Secret] = {}
    for name, item in declared.items():
        value = entry.fields.get(name, "").strip()
        wrong = _wrong(item, value)
        if wrong is not None:
            problems.append(Problem(f"credentials.{name}", wrong[1], item.help, wrong[0]))
        elif value:
            found[name] = Secret(value)
    problems += [
        Problem(f"variables.{item.place}", item.message, item.mend, item.code)
        for item in spec.auth.check_variables(entry.variables)
    ]
    if problems:
        first = problems[0]
        raise InvalidInput(f"{first.place}: {first.message}.", problems=problems)
    return found


def _wrong(item: Credential, value: str) -> tuple[str, str] | None:
    if not value:
        return ("missing", "is missing") if item.required else None
    is_text = len(value) <= ENTERED_CHARS_MAX and value.isprintable()
    # What goes into a header is ASCII, except inside HTTP basic; no vendor's secret is anything
    # else, and a user's name may be.
    if not is_text or (item.secret and not value.isascii()) or not item.accepts(value):
        return "bad_value", f"cannot be a {item.name.replace('_', ' ')}"
    return None
