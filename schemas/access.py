"""Who calls and what for: what a credential turns into once it was checked.

Every route declares what it needs, at the route itself: `openapi_extra=needs("workflows:write")`.
A route that declares nothing is refused to everybody (`control.doors`); the declarations also stand
in /openapi.json, under `x-permission`.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.errors import NotFound
from schemas.ids import WorkspaceId

# What a route may need within a workspace; also the scopes that an API key may have.
Permission = Literal[
    "workspace:read",
    "workspace:write",
    "members:read",
    "members:write",
    "owners:write",
    "keys:read",
    "keys:write",
    "workflows:read",
    "workflows:write",
    "executions:read",
    "executions:write",
    "events:read",
    "events:write",
    "connections:read",
    "connections:write",
    "integrations:read",
    "integrations:write",
    "vault:read",
    "vault:write",
    "audit:read",
    "proxy:write",
    "files:read",
    "files:write",
]
# `public`: nothing; `person`: a log-in; `anyone`: a log-in or an API key, of whatever workspace.
Need = Permission | Literal["public", "person", "anyone"]
DECLARED: Final = "x-permission"


def needs(need: Need) -> dict[str, Any]:
    """Declare what a route needs; goes into its `openapi_extra`."""
    return {DECLARED: need}


def declared(route: object) -> str | None:
    """Tell what a route declared; None where it forgot."""
    extra = getattr(route, "openapi_extra", None)
    found = extra.get(DECLARED) if isinstance(extra, Mapping) else None
    return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Caller:
    """A program with an API key, or a person in a session, in one workspace.

    Attributes:
        workspace_id: The only workspace that it may see.
        mode: `live` or `test`; what it makes belongs to this mode.
        key_id: The credential: which key, `key_…`, or which session, `ses_…`.
        permissions: What it may do there.
        person_id: Who it is, `per_…`; None for a program.
    """

    workspace_id: WorkspaceId
    mode: str
    key_id: str
    permissions: frozenset[str] = frozenset()
    person_id: str | None = None

    def require(self, workspace: str) -> WorkspaceId:
        """Let the caller into this workspace.

        Raises:
            NotFound: It is another's; whether it exists is not told.
        """
        if workspace != self.workspace_id:
            raise NotFound(
                f"There is no workspace {workspace[:64]!r} that this API key can see.",
                code="workspace_not_found",
            )
        return self.workspace_id


# Takes the ASGI scope of a request after routing. Raises `Unauthenticated`, or `Forbidden` where
# the caller may not do what the route declares.
Authenticate = Callable[[MutableMapping[str, Any]], Awaitable[Caller]]
