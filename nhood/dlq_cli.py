"""`nhood dlq`: looks at dead letters of all workspaces and sends them again."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nhood.log_tools import Open, read_time, run
from schemas.errors import InvalidInput
from schemas.settings import Settings
from wire.clock import now

if TYPE_CHECKING:
    from control.deadletters import Sent

_Class = Annotated[
    str, typer.Option("--class", help="unreadable, unknown_schema, invalid, refused, exhausted.")
]
_Code = Annotated[str, typer.Option(help="Reason: not_json, router_error, …")]
_Stage = Annotated[str, typer.Option(help="Who put it aside: router, executors, projector.")]
_Topic = Annotated[str, typer.Option(help="Topic where the record stood.")]
_Workspace = Annotated[str, typer.Option(help="ws_…")]
_Since = Annotated[str, typer.Option(help="Put aside since: a time, or 15m, 2h, 3d ago.")]
_Until = Annotated[str, typer.Option(help="Put aside before.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def build(settings: Callable[[], Settings], say: Callable[[str], None]) -> typer.Typer:
    """Build the command.

    Args:
        settings: Gives the settings, with the addresses of the running stack where it runs.
        say: Prints a sentence.
    """
    app = typer.Typer(
        help="Dead letters: records that nobody could handle, with their bytes and the reason, and"
        " steps that gave up (class exhausted). `nhood dlq list --since 1d`; once the cause is"
        " mended: `nhood dlq redrive --code … --yes`.",
        no_args_is_help=True,
    )
    _add_list(app, settings, say)
    _add_show(app, settings, say)
    _add_redrive(app, settings, say)
    return app


def _add_list(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command("list")
    def list_(  # noqa: PLR0913 - options of a command
        class_: _Class = "",
        code: _Code = "",
        stage: _Stage = "",
        topic: _Topic = "",
        workspace: _Workspace = "",
        since: _Since = "",
        until: _Until = "",
        limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 50,
        *,
        as_json: _Json = False,
    ) -> None:
        """List dead letters, newest first."""
        from control import deadletters
        from control.api.deadletters import item

        wanted = _filters((class_, code, stage, topic), workspace, since, until)

        async def work(open_: Open) -> list[dict[str, Any]]:
            rows = await deadletters.find(_ports(open_), None, wanted, None, limit)
            return [item(row) | {"workspace_id": row["workspace_id"]} for row in rows]

        found = run(settings(), "dlq", work)
        if as_json:
            say(json.dumps({"items": found}, default=str))
            return
        for letter in found:
            again = "  [sent again]" if letter["redriven"] else ""
            say(
                f"{letter['at']:%Y-%m-%d %H:%M:%S}  {letter['letter_id']}  {letter['stage']}"
                f"  {letter['class']}/{letter['code']}  {letter['workspace_id'] or '-'}{again}"
            )
            say(f"    {letter['reason']}")
        if not found:
            say("No dead letters.")


def _add_show(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def show(
        letter: Annotated[str, typer.Argument(help="topic:partition:offset, as `list` shows it.")],
    ) -> None:
        """Show a dead letter with its record, as JSON."""
        from control import deadletters
        from control.api.deadletters import content, item
        from control.core.letters import read_name

        async def work(open_: Open) -> dict[str, Any]:
            row, held = await deadletters.show(_ports(open_), None, read_name(letter))
            return item(row) | {"workspace_id": row["workspace_id"]} | content(held)

        say(json.dumps(run(settings(), "dlq", work), indent=2, default=str, ensure_ascii=False))


def _add_redrive(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def redrive(  # noqa: PLR0913 - options of a command
        letter: Annotated[
            list[str] | None, typer.Argument(help="topic:partition:offset; or use the filters.")
        ] = None,
        class_: _Class = "",
        code: _Code = "",
        stage: _Stage = "",
        topic: _Topic = "",
        workspace: _Workspace = "",
        since: _Since = "",
        until: _Until = "",
        rate: Annotated[int, typer.Option(help="Records a second.", min=1, max=5_000)] = 100,
        limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 1_000,
        *,
        yes: Annotated[bool, typer.Option("--yes", help="Send; without it only tell.")] = False,
        again: Annotated[
            bool, typer.Option("--again", help="Also those that were sent again before.")
        ] = False,
    ) -> None:
        """Send records again as they were, oldest first; without --yes only tell which.

        Exit code 1: some could not be sent.
        """
        wanted = _filters((class_, code, stage, topic), workspace, since, until)
        if letter and any(wanted.values()):
            raise InvalidInput("Name letters or filter, not both.", code="bad_option")
        counts: dict[str, int] = {}

        def tell(sent: "Sent") -> None:
            counts[sent.outcome] = counts.get(sent.outcome, 0) + 1
            where = f" → {sent.place}" if sent.place else ""
            reason = f": {sent.reason}" if sent.reason else ""
            say(f"{sent.outcome.replace('_', ' ')}  {sent.letter}{where}{reason}")

        async def work(open_: Open) -> None:
            from control import deadletters

            rows = await _chosen(open_, letter or [], wanted, limit, again=again)
            how = deadletters.How(deadletters.OPERATOR, not yes, again, rate)
            async for sent in deadletters.redrive(_ports(open_), rows, how):
                tell(sent)

        run(settings(), "dlq", work)
        told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        say(f"In all: {told or 'nothing'}.")
        if not yes and counts.get("would_send"):
            say("Nothing was sent; say it again with --yes.")
        if counts.get("gone") or counts.get("refused"):
            raise typer.Exit(1)


async def _chosen(
    open_: Open, names: list[str], wanted: dict[str, Any], limit: int, *, again: bool
) -> list[dict[str, Any]]:
    from control.core.letters import read_name, unknown_letter
    from control.store import letters
    from wire.database import connection

    async with connection(open_.pool) as on:
        if not names:
            only = wanted if again else {**wanted, "redriven": False}
            return await letters.oldest(on, None, only, limit)
        rows = []
        for name in dict.fromkeys(names):
            row = await letters.get(on, None, read_name(name))
            if row is None:
                raise unknown_letter(name)
            rows.append(row)
    return sorted(rows, key=lambda row: (row["at"], row["topic"], row["partition"], row["offset"]))


def _filters(
    texts: tuple[str, str, str, str], workspace: str, since: str, until: str
) -> dict[str, Any]:
    at = now()
    named = dict(zip(("class", "code", "stage", "topic"), texts, strict=True))
    found: dict[str, Any] = {name: text or None for name, text in named.items()}
    found["workspace"] = workspace or None
    found["since"] = read_time(since, at) if since else None
    found["until"] = read_time(until, at) if until else None
    return found


def _ports(open_: Open) -> Any:  # noqa: ANN401 - imported where it is needed only
    from control import deadletters

    return deadletters.Ports(open_.pool, open_.publisher, open_.log)
