"""`nhood keys`: looks at the vault's keys and changes them while everything runs."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.errors import InvalidInput
from schemas.settings import Settings
from wire.process import keep_memory_private

if TYPE_CHECKING:
    from token_vault.key_report import Report, Ring
    from token_vault.root import KeyProvider
    from token_vault.rotation import Layer, Rotated
    from token_vault.rotation import Progress as Step
    from wire.database import Pool

T = TypeVar("T")
INTERRUPTED = 130
_PHASES = {
    "sealing": "{layer} keys: sealing anew",
    "settling": "waiting until every process seals with the new keys (s)",
    "checking": "{layer} keys: looking again",
}
_HELP = """Look at the vault's keys, and change them while everything runs.

    root        wraps the workspaces' keys; kept where NHOOD_KEY_PROVIDER says
    workspace   wraps the end customers' keys, seals the workspace's own secrets
    user        seals the credentials of one end customer
"""


def build(settings: Callable[[], Settings], say: Callable[[str], None]) -> typer.Typer:
    """Build the command.

    Args:
        settings: Gives the settings, with the addresses of the running stack where it runs.
        say: Prints a sentence.
    """
    app = typer.Typer(help=_HELP, no_args_is_help=True)

    @app.command()
    def status(
        *, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
    ) -> None:
        """Show which keys there are, how old they are, and rotations that are not finished."""
        from token_vault.key_report import report

        found = _run(settings(), report)
        if as_json:
            say(json.dumps(found.as_json()))
            return
        _tell(found, say)

    @app.command()
    def rotate(
        layer: Annotated[
            str, typer.Option(help="root, workspace, user, or all of them in this order.")
        ] = "all",
        workspace: Annotated[
            str, typer.Option(help="ws_…: only this workspace's (workspace and user keys).")
        ] = "",
        settle: Annotated[
            float | None,
            typer.Option(
                help="Seconds to wait before old keys are retired; less only where nothing runs.",
                min=0,
                show_default="30",
            ),
        ] = None,
    ) -> None:
        """Make new keys and seal everything anew; services go on, nothing needs a restart.

        Ctrl-C is safe at any time: said again, the command goes on where it was. Old keys are
        retired when nothing uses them, and destroyed an hour later by a running gateway or the
        next rotation. Exit code 1: something does not open, and keeps its old key; 130: broken
        off.
        """
        from token_vault.rotation import SETTLE_S

        layers = _layers(layer, bool(workspace))
        wait = SETTLE_S if settle is None else settle
        try:
            ended, destroyed = _rotate(settings(), layers, workspace or None, wait)
        except KeyboardInterrupt:
            say("Broken off; what is done is kept. Say it again to go on.")
            raise typer.Exit(INTERRUPTED) from None
        for run in ended:
            say(_sentence(run))
        if destroyed:
            say(f"Destroyed {destroyed} keys that were retired before.")
        if any(run.failed for run in ended):
            raise typer.Exit(1)

    @app.command()
    def drop_root(
        name: Annotated[str, typer.Argument(help="file:…, as `nhood keys status` shows it.")],
    ) -> None:
        """Take an old root key out of the key file; backups from before need it, so keep a copy."""
        from token_vault import key_report

        _run(settings(), lambda pool, root: key_report.drop_root(pool, root, name))
        say(f"Dropped {name}.")

    return app


def _layers(layer: str, for_workspace: bool) -> "tuple[Layer, ...]":  # noqa: FBT001 - private
    from token_vault.rotation import LAYERS

    if layer == "all":
        return LAYERS[1:] if for_workspace else LAYERS
    for known in LAYERS:
        if known == layer:
            return (known,)
    raise InvalidInput(f"{layer!r} is no layer: root, workspace, user or all.", code="bad_option")


def _rotate(
    settings: Settings, layers: "tuple[Layer, ...]", workspace: str | None, settle_s: float
) -> "tuple[list[Rotated], int]":
    from token_vault.keys import KeyRing
    from token_vault.rotation import Rotation, destroy

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    tasks = {}

    def tell(step: "Step") -> None:
        name = step.phase if step.phase == "settling" else (step.layer, step.phase)
        if name not in tasks:
            tasks[name] = bar.add_task(_PHASES[step.phase].format(layer=step.layer))
        bar.update(tasks[name], completed=step.done, total=step.total)

    async def work(pool: "Pool", root: "KeyProvider") -> "tuple[list[Rotated], int]":
        ring = KeyRing(root, pool)
        rotation = Rotation(pool, ring, root, settle_s=settle_s, tell=tell)
        ended = await rotation.rotate(layers, workspace)
        return ended, await destroy(pool)

    with bar:
        return _run(settings, work)


def _sentence(run: "Rotated") -> str:
    if run.layer == "root" and not run.changed:
        return (
            f"root: {run.root} is still in force and wraps everything. A new one is made where it"
            " is kept: point NHOOD_AWS_KMS_KEY or its alias to another key, then say this again."
        )
    again = "went on with it; " if run.continued else ""
    text = f"{run.layer}: {again}{run.done} sealed anew"
    if run.root:
        text += f" by {run.root}"
    if run.failed:
        text += (
            f"; {run.failed} do not open and were left as they are, with their keys (the log names"
            " them)"
        )
    return text + "."


def _tell(found: "Report", say: Callable[[str], None]) -> None:
    say(f"Root key in force: {found.root}")
    for name, count in sorted(found.roots.items()):
        if name != found.root:
            hint = "" if count else " (nothing needs it; older backups of the database do)"
            say(f"  {name} wraps {count}{hint}")
    say(f"Workspace keys: {_ring(found.workspace_keys)}")
    say(f"User keys: {_ring(found.user_keys)}")
    for layer, at in sorted(found.finished.items()):
        say(f"Last rotation of {layer}: {_time(at)}")
    for run in found.unfinished:
        whose = f" of {run.workspace_id}" if run.workspace_id else ""
        how = "under way" if found.running else "broken off: say `nhood keys rotate` to go on"
        say(
            f"Rotation of {run.layer}{whose}, begun {_time(run.started_at)}, {run.done} done: {how}"
        )


def _ring(ring: "Ring") -> str:
    oldest = f", the oldest of {_time(ring.oldest)}" if ring.oldest else ""
    return f"{ring.current} in force{oldest}; {ring.superseded} superseded, {ring.retired} retired"


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _run(settings: Settings, work: "Callable[[Pool, KeyProvider], Awaitable[T]]") -> T:
    from token_vault.root import check_root, open_provider, prove
    from wire.database import migrate, open_pool
    from wire.telemetry import configure_logging

    keep_memory_private()
    configure_logging("keys", "warning")
    url = settings.database_url.reveal()
    if not url:
        raise InvalidInput("Set DATABASE_URL, or start it with `nhood up`.", code="missing_setting")
    migrate(url)

    async def run() -> T:
        pool = await open_pool(url, max_size=6, name="keys")
        try:
            root = open_provider(settings)
            await prove(root)
            await check_root(root, pool)
            return await work(pool, root)
        finally:
            await pool.close()

    return asyncio.run(run())
