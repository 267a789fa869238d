"""Fault scripts: what goes wrong next, for which provider and call, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCRIPTS_MAX: Final = 1_000
DELAY_MS_MAX: Final = 120_000
TIMES_MAX: Final = 1_000_000
BODY_BYTES_MAX: Final = 64 * 1024 * 1024


class Fault(BaseModel):
    """What goes wrong; what is not said goes its usual way.

    `status`, `headers` and `body` answer so instead, without doing anything. `reset` breaks the
    connection off, before or after doing it; `truncate` does it and sends half the answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Annotated[int, Field(ge=100, le=599)] | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None
    body_bytes: Annotated[int, Field(ge=0, le=BODY_BYTES_MAX)] = Field(
        default=0, description="Answer with a body of this size instead."
    )
    delay_ms: Annotated[int, Field(ge=0, le=DELAY_MS_MAX)] = 0
    reset: Literal["before", "after"] | bool = False
    truncate: bool = False
    unauthorised: bool = Field(default=False, description="Answer as for an expired token.")

    @property
    def name(self) -> str:
        """What to call it in the log."""
        if self.reset:
            return f"reset {'after' if self.reset == 'after' else 'before'}"
        if self.truncate:
            return "truncate"
        if self.unauthorised:
            return "unauthorised"
        return f"status {self.status}" if self.status is not None else f"delay {self.delay_ms} ms"


class FaultScript(BaseModel):
    """Which calls go wrong, and how often."""

    model_config = ConfigDict(extra="forbid")

    provider: str
    action: str | None = Field(
        default=None,
        description="An action's name, or oauth.token, oauth.revoke, oauth.account; * may be used.",
    )
    path: str | None = Field(default=None, description="A path below the provider; * may be used.")
    times: Annotated[int, Field(ge=1, le=TIMES_MAX)] = 1
    after: Annotated[int, Field(ge=0, le=TIMES_MAX)] = Field(
        default=0, description="How many such calls go well first."
    )
    fault: Fault


@dataclass(slots=True)
class Faults:
    """The scripts that wait, in the order in which they came."""

    _waiting: dict[str, list[FaultScript]] = field(default_factory=dict)

    def add(self, script: FaultScript) -> bool:
        """Take a script; False where there are too many."""
        scripts = self._waiting.setdefault(script.provider, [])
        if len(scripts) >= SCRIPTS_MAX:
            return False
        scripts.append(script)
        return True

    def take(self, slug: str, action: str, path: str) -> Fault | None:
        """Give the fault for a call, counting it."""
        scripts = self._waiting.get(slug)
        if not scripts:
            return None
        for script in scripts:
            if not _fits(script, action, path):
                continue
            if script.after > 0:
                script.after -= 1
                return None
            script.times -= 1
            if script.times == 0:
                scripts.remove(script)
            return script.fault
        return None

    def shown(self) -> list[Mapping[str, Any]]:
        """Give the scripts that wait."""
        return [s.model_dump(mode="json") for scripts in self._waiting.values() for s in scripts]

    def clear(self) -> None:
        """Forget all scripts."""
        self._waiting.clear()


def _fits(script: FaultScript, action: str, path: str) -> bool:
    if script.action is not None and not fnmatchcase(action, script.action):
        return False
    return script.path is None or fnmatchcase(path, script.path)
