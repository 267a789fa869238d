"""Who calls: what a credential turns into once it was checked."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from schemas.errors import NotFound
from schemas.ids import WorkspaceId


@dataclass(frozen=True, slots=True)
class Caller:
    """A program of the developer, known by its API key.

    Attributes:
        workspace_id: The only workspace that it may see.
        mode: `live` or `test`; what it makes belongs to this mode.
        key_id: Which key it used, `key_…`.
    """

    workspace_id: WorkspaceId
    mode: str
    key_id: str

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


# Takes the `Authorization` header as it came (None: absent); raises `Unauthenticated`.
Authenticate = Callable[[str | None], Awaitable[Caller]]
