"""`nhood replay`: runs executions once more; the gateways carry it out."""

import json
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

import typer

from nhood.log_tools import Open, read_time, run
from schemas.access import Caller
from schemas.errors import InvalidInput
from schemas.ids import WorkspaceId, is_id
from schemas.settings import Settings
from wire.clock import now

OPERATOR = "operator"
LOOK_EVERY_S = 0.5
_ENDED = ("finished", "cancelled", "failed", "paused", "awaiting_confirmation")

_Workspace = Annotated[str, typer.Option(help="ws_…: whose.")]
_Live = Annotated[bool, typer.Option("--live/--test", help="Live or test executions.")]
_Id = Annotated[str, typer.Argument(help="rpl_…")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def build(settings: Callable[[], Settings], say: Callable[[str], None]) -> typer.Typer:
    """Build the command.

    Args:
        settings: Gives the settings, with the addresses of the running stack where it runs.
        say: Prints a sentence.
    """
    app = typer.Typer(
        help="Run executions once more. `dry` calls nobody and tells what would be called; `repair`"
        " calls what is missing, under the same effect keys; `force` calls everything again.",
        no_args_is_help=True,
    )
    _add_start(app, settings, say)
    _add_show(app, settings, say)
    for word in ("pause", "resume", "cancel"):
        _add_turn(app, word, settings, say)
    _add_confirm(app, settings, say)
    return app


def _add_start(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def start(  # noqa: PLR0913 - options of a command
        workspace: _Workspace,
        mode: Annotated[str, typer.Option(help="dry, repair or force.")] = "dry",
        execution: Annotated[str, typer.Option(help="ex_…: this one only.")] = "",
        since: Annotated[str, typer.Option(help="Accepted since: a time, or 2h, 3d ago.")] = "",
        until: Annotated[str, typer.Option(help="Accepted before.")] = "",
        offsets: Annotated[
            list[str] | None, typer.Option(help="partition:first:end, the end not included.")
        ] = None,
        workflow: Annotated[str, typer.Option(help="wf_…: of this one only.")] = "",
        status: Annotated[
            list[str] | None, typer.Option(help="succeeded, failed or cancelled; else all.")
        ] = None,
        version: Annotated[str, typer.Option(help="pinned, current or a number.")] = "pinned",
        from_step: Annotated[str, typer.Option(help="With force and dry: from this step on.")] = "",
        input_: Annotated[
            str, typer.Option("--input", help="JSON in place of the event's body.")
        ] = "",
        rate: Annotated[int, typer.Option(help="Executions a second.", min=1, max=500)] = 20,
        *,
        live: _Live = True,
        unmatched: Annotated[
            bool, typer.Option(help="Also events that started nothing (--version current).")
        ] = False,
        wait: Annotated[bool, typer.Option(help="Wait until it ends.")] = True,
    ) -> None:
        """Choose executions and run them once more; a forced one asks for its confirmation.

        Exit code 1: it did not finish.
        """
        from control import replays

        at = now()
        selection: dict[str, Any] = {
            "execution_id": execution or None,
            "workflow_id": workflow or None,
            "statuses": _known_statuses(status or []),
            "since": read_time(since, at).isoformat() if since else None,
            "until": read_time(until, at).isoformat() if until else None,
            "offsets": [_range(text) for text in offsets or []] or None,
            "unmatched": unmatched or None,
        }
        if mode not in ("dry", "repair", "force"):
            raise InvalidInput("--mode is dry, repair or force.", code="bad_option")
        asked = replays.Asked(
            cast("Literal['dry', 'repair', 'force']", mode),
            {name: value for name, value in selection.items() if value},
            version,
            from_step or None,
            _json(input_) if input_ else None,
            rate,
        )
        caller = _caller(workspace, live=live)

        async def begin(open_: Open) -> tuple[dict[str, Any], str | None]:
            return await replays.ask(open_.pool, caller, asked, at)

        row, token = run(settings(), "replay", begin)
        say(f"{row['replay_id']}: {row['total']} to replay, mode {mode}.")
        if token is not None:
            say(
                "Everything will be called again. Within 10 minutes:"
                f" nhood replay confirm {row['replay_id']} {token} --workspace {workspace}"
                f" {'--live' if live else '--test'}"
            )
        elif wait:
            _follow(settings(), caller, row["replay_id"], say)


def _add_show(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def show(
        replay: _Id,
        workspace: _Workspace,
        *,
        live: _Live = True,
        items: Annotated[bool, typer.Option("--items", help="Each execution as well.")] = False,
        as_json: _Json = False,
    ) -> None:
        """Show how far a replay is, and with --items what came of each execution."""
        from control.store import replays as store
        from wire.database import connection

        caller = _caller(workspace, live=live)

        async def look(open_: Open) -> tuple[dict[str, Any], list[dict[str, Any]]]:
            told = await _progress(open_, caller, replay)
            async with connection(open_.pool) as on:
                found = await store.items(on, replay, 0, 10_000) if items else []
            return told, found

        told, found = run(settings(), "replay", look)
        if as_json:
            say(json.dumps(told | {"list": found}, default=str))
            return
        say(_sentence(told))
        for item in found:
            say(f"  {item['sequence']}  {item['execution_id'] or '-'}  {item['status']}"
                f"  {item['new_execution_id'] or ''} {item['reason']}{_would(item)}")  # fmt: skip


def _add_turn(
    app: typer.Typer, word: str, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    helps = {
        "pause": "Hold a replay; what was sent goes on.",
        "resume": "Go on with a paused replay.",
        "cancel": "End a replay; executions that it began go on.",
    }

    @app.command(word, help=helps[word])
    def turn(replay: _Id, workspace: _Workspace, *, live: _Live = True) -> None:
        from control import replays

        act = {"pause": replays.pause, "resume": replays.resume, "cancel": replays.cancel}[word]

        async def work(open_: Open) -> dict[str, Any]:
            await act(open_.pool, _caller(workspace, live=live), replay)
            return await _progress(open_, _caller(workspace, live=live), replay)

        say(_sentence(run(settings(), "replay", work)))


def _add_confirm(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def confirm(
        replay: _Id,
        token: Annotated[str, typer.Argument(help="As `start` printed it.")],
        workspace: _Workspace,
        *,
        live: _Live = True,
        wait: Annotated[bool, typer.Option(help="Wait until it ends.")] = True,
    ) -> None:
        """Begin a forced replay. Exit code 1: it did not finish."""
        from control import replays

        caller = _caller(workspace, live=live)

        async def work(open_: Open) -> None:
            await replays.confirm(open_.pool, caller, replay, token, now())

        run(settings(), "replay", work)
        if wait:
            _follow(settings(), caller, replay, say)


def _follow(settings: Settings, caller: Caller, replay: str, say: Callable[[str], None]) -> None:
    """Wait for the end and tell it."""

    async def look(open_: Open) -> dict[str, Any]:
        return await _progress(open_, caller, replay)

    told = _until(lambda: run(settings, "replay", look))
    say(_sentence(told))
    if told["status"] != "finished":
        raise typer.Exit(1)


def _until(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    while (told := look())["status"] not in _ENDED:
        time.sleep(LOOK_EVERY_S)
    return told


async def _progress(open_: Open, caller: Caller, replay: str) -> dict[str, Any]:
    from control import replays
    from control.store import replays as store
    from wire.database import connection

    row = await replays.known(open_.pool, caller, replay)
    async with connection(open_.pool) as on:
        items = await store.counts(on, replay)
        started = await store.executions(on, replay)
    names = ("replay_id", "kind", "status", "total", "created_at", "finished_at")
    return {name: row[name] for name in names} | {"items": items, "executions": started}


def _sentence(told: dict[str, Any]) -> str:
    items = ", ".join(f"{count} {name}" for name, count in sorted(told["items"].items()))
    begun = ", ".join(f"{count} {name}" for name, count in sorted(told["executions"].items()))
    tail = f"; executions: {begun}" if begun else ""
    return f"{told['replay_id']} ({told['kind']}) {told['status']}: {items or 'nothing'}{tail}"


def _would(item: dict[str, Any]) -> str:
    report = item["report"]
    if not report:
        return ""
    changes = len(report.get("changes", []))
    calls = report.get("would_call", "?")
    return f"would end {report['status']}, would call {calls}, changes {changes}"


def _caller(workspace: str, *, live: bool) -> Caller:
    if not is_id("ws", workspace):
        raise InvalidInput("--workspace takes a workspace's id, ws_….", code="bad_option")
    return Caller(WorkspaceId(workspace), "live" if live else "test", OPERATOR)


def _known_statuses(names: list[str]) -> list[str]:
    for name in names:
        if name not in ("succeeded", "failed", "cancelled"):
            raise InvalidInput("--status is succeeded, failed or cancelled.", code="bad_option")
    return names


def _range(text: str) -> dict[str, int]:
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise InvalidInput("--offsets takes partition:first:end.", code="bad_option")
    return dict(zip(("partition", "first", "end"), map(int, parts), strict=True))


def _json(text: str) -> bytes:
    import orjson

    try:
        return orjson.dumps(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"--input is no JSON: {error}.", code="bad_option") from error
