"""Tells who makes a request, and lets them through where they may do what its route declares.

    API key         one workspace and mode, as the key says; its scopes
    access token    a person; workspace from the path or `Nhood-Workspace`, mode from `Nhood-Mode`
                    (`test` where it is not said: a mistake must not touch live data); their role

Asked once a request: the answer stays in its ASGI scope for whoever asks next.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, cast

from starlette.datastructures import Headers

from control.core.access import bearer_token
from control.core.roles import of_role, require
from control.keys import ApiKeys
from control.sessions import Sessions
from schemas.access import Caller, declared
from schemas.errors import Forbidden, InvalidInput, NeighbourhoodError, NotFound, Unauthenticated
from schemas.ids import WorkspaceId, is_id

Scope = MutableMapping[str, Any]

_WORKSPACE = re.compile(r"/api/v1/workspaces/([^/]+)")
_HEADER: Final = "nhood-workspace"
_MODE: Final = "nhood-mode"
_KEPT: Final = "nhood.who"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is logged in, in no workspace in particular."""

    person_id: str
    session_id: str


class Doors:
    """One for all routes; `caller` is a `schemas.access.Authenticate`."""

    def __init__(self, keys: ApiKeys, sessions: Sessions) -> None:
        self._keys = keys
        self._sessions = sessions

    async def caller(self, scope: Scope) -> Caller:
        """Give who calls, after routing, where they may do what the route declares.

        Raises:
            Unauthenticated: Nobody we know.
            NotFound: A person, in a workspace that they are no member of.
            InvalidInput: A person who did not say in which workspace.
            Forbidden: They may not, or the route declares nothing.
        """
        need = declared(scope.get("route"))
        if need is None:
            raise Forbidden("This address is not open to anybody yet.", code="nothing_declared")
        found = await self.who(scope)
        if isinstance(found, Person):
            raise InvalidInput(
                "Say in which workspace: send the header `Nhood-Workspace: ws_…`.",
                code="workspace_missing",
            )
        if need != "anyone":
            require(found, need)
        return found

    async def person(self, scope: Scope) -> Person:
        """Give who is logged in, whatever the workspace.

        Raises:
            Unauthenticated: Nobody; an API key is no person.
        """
        token = bearer_token(_authorization(scope))
        if token is None or token.count(".") != 2:
            raise Unauthenticated(
                "This takes a person: log in with POST /api/v1/auth/login and send the access"
                " token, not an API key.",
                code="session_required",
            )
        bearer = await self._sessions.bearer(token)
        await self._sessions.live(bearer, None)
        return Person(bearer.person_id, bearer.session_id)

    async def who(self, scope: Scope) -> Caller | Person:
        """Give who makes a request; what they may do is not asked.

        Raises:
            Unauthenticated: Nobody we know.
            NotFound: A person, in a workspace that they are no member of.
            InvalidInput: The headers that choose workspace or mode say nothing sensible.
        """
        kept = scope.get(_KEPT)
        if kept is None:
            kept = scope[_KEPT] = await _settled(self._who, scope)
        if isinstance(kept, NeighbourhoodError):
            raise kept
        return cast("Caller | Person", kept)

    async def _who(self, scope: Scope) -> Caller | Person:
        header = _authorization(scope)
        token = bearer_token(header)
        # A JWT has two dots, an API key none.
        if token is None or token.count(".") != 2:
            return await self._keys.authenticate(header)
        bearer = await self._sessions.bearer(token)
        headers = Headers(scope=scope)
        workspace = _workspace(scope, headers)
        live = await self._sessions.live(bearer, workspace)
        if workspace is None:
            return Person(bearer.person_id, bearer.session_id)
        if live.role is None:
            raise NotFound(
                f"There is no workspace {workspace[:64]!r} that you can see.",
                code="workspace_not_found",
            )
        mode = headers.get(_MODE, "test")
        if mode not in ("live", "test"):
            raise InvalidInput("The header Nhood-Mode says live or test.", code="bad_mode")
        return Caller(
            WorkspaceId(workspace),
            mode,
            bearer.session_id,
            of_role(live.role),
            bearer.person_id,
        )


async def _settled(
    ask: Callable[[Scope], Awaitable[Caller | Person]], scope: Scope
) -> Caller | Person | NeighbourhoodError:
    try:
        return await ask(scope)
    except NeighbourhoodError as error:
        return error


def _authorization(scope: Scope) -> str | None:
    """Find the header by hand: events come this way, and the class costs more than the rest."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return cast("bytes", value).decode("latin-1")
    return None


def _workspace(scope: Scope, headers: Headers) -> str | None:
    """Find the workspace that a person means."""
    found = _WORKSPACE.match(scope["path"])
    named = found[1] if found is not None else headers.get(_HEADER)
    if named is not None and not is_id("ws", named):
        raise NotFound(
            f"There is no workspace {named[:64]!r} that you can see.", code="workspace_not_found"
        )
    return named
