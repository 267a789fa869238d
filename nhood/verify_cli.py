"""`nhood verify`: what became of all that was accepted; or, without any server, a statement."""

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nhood.log_tools import Open, read_time, run
from schemas.errors import InvalidInput
from schemas.settings import Settings
from wire.clock import now

if TYPE_CHECKING:
    from control.completeness import Report

_KEY_BYTES = 32


def add(app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]) -> None:
    """Add the command.

    Args:
        app: Where to.
        settings: Gives the settings, with the addresses of the running stack where it runs.
        say: Prints a sentence.
    """

    @app.command()
    def verify(  # noqa: PLR0913 - options of a command
        since: Annotated[
            str, typer.Option("--from", help="Accepted since: a time, or 15m, 2h, 3d ago.")
        ] = "",
        until: Annotated[str, typer.Option("--to", help="Accepted before.")] = "",
        workspace: Annotated[str, typer.Option(help="ws_…; without it all of them.")] = "",
        grace: Annotated[
            float, typer.Option(help="Seconds that an event may be on its way.", min=0)
        ] = 60,
        statement: Annotated[
            Path | None,
            typer.Option(help="Check signed statements in this file instead; needs no server."),
        ] = None,
        key: Annotated[
            list[str] | None,
            typer.Option(help="Public key that you trust (base 64, from /api/v1/statement-keys)."),
        ] = None,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    ) -> None:
        """Join accepted events with their outcomes, executions with their ends; name every gap.

        Exit code 1: something is missing, or a statement is not what it says it is.
        """
        if statement is not None:
            if since or until or workspace:
                raise InvalidInput("--statement stands alone, with --key.", code="bad_option")
            good = _check_statements(statement, key or [], say)
        else:
            good = _check_log(settings(), (since, until, workspace), grace, say, as_json=as_json)
        if not good:
            raise typer.Exit(1)


def _check_log(
    settings: Settings,
    chosen: tuple[str, str, str],
    grace_s: float,
    say: Callable[[str], None],
    *,
    as_json: bool,
) -> bool:
    from control.api.completeness import told
    from control.completeness import Wanted, check

    since, until, workspace = chosen
    at = now()
    wanted = Wanted(
        workspace or None,
        read_time(since, at) if since else None,
        read_time(until, at) if until else None,
        grace_s,
    )

    async def work(open_: Open) -> "Report":
        return await check(open_.pool, open_.log, wanted, now())

    report = run(settings, "verify", work)
    if as_json:
        say(json.dumps(told(report), default=str))
    else:
        _tell(report, say)
    return report.complete


def _tell(report: "Report", say: Callable[[str], None]) -> None:
    places = ", ".join(f"{n}: {a} to {b}" for n, (a, b) in sorted(report.ranges.items()) if b > a)
    say(f"Offsets of the events topic (partition: first to end): {places or 'none'}")
    say(f"Accepted: {report.accepted}  ({_counts(report.outcomes)}, in flight {report.in_flight})")
    say(f"Executions: {_counts(report.executions)}")
    for gap in report.gaps:
        name = gap.execution_id or gap.event_id or "-"
        say(f"GAP {gap.kind}  {gap.place}  {gap.workspace_id or '-'}  {name}: {gap.why}")
    if report.unnamed:
        say(f"… and at least {report.unnamed} more.")
    if report.behind:
        say(f"The read side is {report.behind} records behind the log: gaps may be none.")
    say("Complete." if report.complete else "Not complete.")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _check_statements(path: Path, keys: list[str], say: Callable[[str], None]) -> bool:
    from control.core.statements import check, read_documents

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", code="bad_file") from error
    documents = read_documents(data)
    verdict = check(documents, [_key(text) for text in keys])
    for problem in verdict.problems:
        say(f"WRONG  {problem}")
    for body in _bodies(documents) if verdict.good else []:
        counts = ", ".join(f"{name} {count}" for name, count in body["counts"].items())
        say(f"{body['workspace_id']}  #{body['sequence']}  until {body['until']}: {counts}")
    if verdict.good:
        trusted = "" if keys else " The key came with them: give --key to be sure whose it is."
        say(f"{verdict.count} statements are as they were signed.{trusted}")
    return verdict.good


def _bodies(documents: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    return [json.loads(item["statement"]) for item in documents]


def _key(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != _KEY_BYTES:
        raise InvalidInput("--key takes a public key: 32 bytes in base 64.", code="bad_key")
    return found
