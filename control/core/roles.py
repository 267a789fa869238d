"""Who may do what: one table, deny by default; pure.

A person has a role in a workspace, an API key has scopes; both become a set of permissions, and
only that set is asked. Nobody can give away more than they hold themselves.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

from schemas.access import Caller, Permission
from schemas.errors import Forbidden, InvalidInput, Problem

Role = Literal["owner", "admin", "developer", "viewer"]
ROLES: Final[tuple[Role, ...]] = ("owner", "admin", "developer", "viewer")

EVERYTHING: Final[frozenset[str]] = frozenset(get_args(Permission))
_VIEWER: Final = frozenset(
    {
        "workspace:read",
        "members:read",
        "workflows:read",
        "executions:read",
        "events:read",
        "connections:read",
        "integrations:read",
        "files:read",
    }
)
_DEVELOPER: Final = _VIEWER | {
    "keys:read",
    "workflows:write",
    "executions:write",
    "events:write",
    "connections:write",
    "audit:read",
    "proxy:write",
    "files:write",
}
PERMISSIONS: Final[Mapping[Role, frozenset[str]]] = {
    "viewer": _VIEWER,
    "developer": _DEVELOPER,
    "admin": EVERYTHING - {"owners:write"},
    "owner": EVERYTHING,
}
# Members reach live data: a key that lies in a test environment must not make any.
_NOT_IN_TEST: Final = frozenset({"members:write", "owners:write"})
ALL: Final = "*"
_RESOURCES: Final = frozenset(name.partition(":")[0] for name in EVERYTHING)
SCOPES_MAX: Final = 50


def of_role(role: str) -> frozenset[str]:
    """Give what a role may do; nothing where it is not known."""
    found: frozenset[str] = PERMISSIONS.get(role, frozenset())  # type: ignore[call-overload]
    return found


def of_scopes(scopes: Iterable[str], mode: str) -> frozenset[str]:
    """Give what a key with these scopes may do.

    Args:
        scopes: `*`, `workflows:*` or `workflows:read`; what is not known gives nothing.
        mode: Of the key: `live` or `test`.
    """
    found: set[str] = set()
    for scope in scopes:
        found |= _meant(scope)
    return frozenset(found if mode == "live" else found - _NOT_IN_TEST)


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """Give the scopes sorted and once each.

    Raises:
        InvalidInput: `unknown_scope`, with every place.
    """
    problems = [
        Problem(
            f"scopes[{place}]",
            f"{scope[:64]!r} is not a scope",
            f"Known: *, {', '.join(sorted(f'{name}:*' for name in _RESOURCES))},"
            f" {', '.join(sorted(EVERYTHING))}.",
            "unknown_scope",
        )
        for place, scope in enumerate(scopes)
        if not _meant(scope)
    ]
    if problems:
        first = problems[0]
        raise InvalidInput(
            f"{first.place}: {first.message}.", problems=problems, code="unknown_scope"
        )
    return sorted(set(scopes))


def require(caller: Caller, need: str) -> None:
    """Let the caller do something, or say what they lack.

    Raises:
        Forbidden: `missing_permission`.
    """
    if need in caller.permissions:
        return
    if caller.person_id is None:
        raise Forbidden(
            f"This API key has not the scope {need}; use one that has it, or make one with POST"
            " /api/v1/workspaces/{workspace_id}/api-keys.",
            code="missing_permission",
        )
    able = [role for role in reversed(ROLES) if need in PERMISSIONS[role]]
    raise Forbidden(
        f"Your role in this workspace does not include {need}; it takes {' or '.join(able)}.",
        code="missing_permission",
    )


def require_grantable(caller: Caller, granted: frozenset[str], what: str) -> None:
    """Refuse to hand out, take away or take over what is beyond the caller's own rights.

    Args:
        caller: Who wants to.
        granted: What the other one may do, or will.
        what: For the sentence: `the role owner`.

    Raises:
        Forbidden: `beyond_own_rights`.
    """
    lacking = sorted(granted - caller.permissions)
    if lacking:
        raise Forbidden(
            f"You cannot deal with {what}: it includes {lacking[0]}, which you do not have"
            " yourself.",
            code="beyond_own_rights",
        )


def _meant(scope: str) -> frozenset[str]:
    if scope == ALL:
        return EVERYTHING
    resource, _, verb = scope.partition(":")
    if verb == ALL and resource in _RESOURCES:
        return frozenset(name for name in EVERYTHING if name.startswith(f"{resource}:"))
    return frozenset({scope}) & EVERYTHING
