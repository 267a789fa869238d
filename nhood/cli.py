"""The `nhood` command: thin; each command calls one function and prints what it gives."""

import asyncio
import gc
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from nhood import dlq_cli, keys, people, providers_cli, replay_cli, sandbox_cli, verify_cli
from nhood.run_state import RunState, read_state
from nhood.secrets import with_secrets
from schemas.errors import InvalidInput, NeighbourhoodError
from schemas.settings import Settings
from wire.process import keep_memory_private

app = typer.Typer(
    help="NeighbourHood: workflows that run with your customers' accounts, on Kafka.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def _say(sentence: str) -> None:
    _out.print(sentence, markup=False)


def _settings() -> Settings:
    return Settings.from_env(with_secrets(os.environ))  # noqa: TID251 - the composition root


def _folder(settings: Settings) -> Path:
    return Path(settings.state_dir).absolute()


def _tell_addresses(state: RunState) -> None:
    _say(f"Ready. API and portal: {state.gateway_url}   API reference: {state.gateway_url}/docs")
    _say(f"Sandbox (plays the vendors for test keys): {state.sandbox_url}")


@app.command()
def up(
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once ready; runs on in the background.")
    ] = False,
) -> None:
    """Start Kafka, PostgreSQL, Valkey and all stages on this machine; Ctrl-C stops them in order.

    State is kept in .nhood/ (NHOOD_STATE_DIR). A server named by KAFKA_BOOTSTRAP_SERVERS,
    DATABASE_URL or REDIS_URL is used instead of starting one.
    """
    from nhood.supervisor import Supervisor
    from nhood.supervisor import detach as start_detached

    settings = _settings()
    state = read_state(_folder(settings))
    if state.is_up:
        _say("Already up." if state.ready else "Already starting.")
        _tell_addresses(state)
        return
    if detach:
        state = start_detached(settings, os.environ, _say)  # noqa: TID251 - handed on to it
        return

    def ready(state: RunState) -> None:
        _tell_addresses(state)
        _say("Ctrl-C stops everything; a second Ctrl-C kills it.")

    Supervisor(settings, os.environ, _say).run(ready)  # noqa: TID251 - handed on to the stages


@app.command()
def down() -> None:
    """Stop everything that `nhood up` started; nothing running is fine too."""
    from nhood.supervisor import bring_down

    folder = _folder(_settings())
    bring_down(folder, _say)
    _say("Down.")


@app.command()
def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show what runs, whether it is ready, and where; exit code 1 where it is not all ready."""
    from nhood.supervisor import is_ready

    state = read_state(_folder(_settings()))
    rows = []
    for part in state.parts:
        alive = part.alive
        ready = alive and (part.kind == "server" or is_ready(part))
        process = psutil.Process(part.pid) if alive else None
        memory = process.memory_info().rss >> 20 if process else 0
        up_for = int(time.time() - part.created) if alive else 0
        rows.append((part.name, part.pid, part.port, ready, memory, up_for, part.restarts))
    healthy = bool(rows) and state.is_up and all(row[3] for row in rows)
    if as_json:
        names = ("part", "pid", "port", "ready", "memory_mb", "uptime_s", "restarts")
        body = {
            "up": healthy,
            "url": state.gateway_url,
            "sandbox": state.sandbox_url,
            "parts": [dict(zip(names, row, strict=True)) for row in rows],
        }
        _say(json.dumps(body))
    elif not rows:
        _say("Nothing is running here. Start it with `nhood up`.")
    else:
        table = Table("part", "pid", "port", "ready", "memory", "up for", "restarts")
        for name, pid, port, ready, memory, up_for, restarts in rows:
            mark = "yes" if ready else "NO"
            table.add_row(
                name, str(pid), str(port), mark, f"{memory} MB", f"{up_for} s", str(restarts)
            )
        _out.print(table)
        _tell_addresses(state)
    if not healthy:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what is wrong on this machine and how to mend it; exit code 1 where something is."""
    from nhood.doctor import examine

    findings = examine(_settings(), os.environ)  # noqa: TID251 - looks at JAVA_HOME
    for finding in findings:
        mark = "ok     " if finding.ok else "PROBLEM"
        _say(f"{mark}  {finding.what}: {finding.says}")
        if finding.mend:
            _say(f"         → {finding.mend}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop everything at the end.")] = False,
) -> None:
    """Show the whole way of an event: workspace, workflow, accounts, webhook, timeline."""
    from nhood.demo import run

    raise typer.Exit(run(_settings(), os.environ, once=once))  # noqa: TID251 - handed on


_Stage = Callable[[Settings], Awaitable[None]]


def _stage(name: str, providers: tuple[str, ...] | None) -> _Stage:
    """Find a stage; each is imported only by its own process."""
    if name == "gateway":
        from nhood.gateway import serve as gateway

        return gateway
    if name == "router":
        from router.app import serve as router

        return router
    if name == "executors":
        from executors.app import serve as executors

        return lambda settings: executors(settings, providers)
    if name == "projector":
        from control.projections.app import serve as projector

        return projector
    if name == "sandbox":
        from nhood.sandbox.app import serve as sandbox

        return sandbox
    raise InvalidInput(
        f"There is no stage {name!r}: gateway, router, executors, projector or sandbox.",
        code="unknown_stage",
    )


@app.command()
def serve(
    stage: Annotated[str, typer.Argument(help="gateway, router, executors, projector or sandbox.")],
    providers: Annotated[
        str, typer.Option(help="For executors: serve only these, separated by commas.")
    ] = "",
) -> None:
    """Run one stage in the foreground against the servers that the environment names."""
    settings = _settings()
    wanted = tuple(name.strip() for name in providers.split(",") if name.strip())
    if wanted and stage != "executors":
        raise InvalidInput("--providers belongs to the stage executors.", code="bad_option")
    run = _stage(stage, wanted or None)
    _require_servers(stage, settings)
    keep_memory_private()
    _calm_the_collector()
    uvloop.run(run(settings))  # type: ignore[arg-type]  # serve() is a coroutine function


def _calm_the_collector() -> None:
    """Let Python look for reference cycles less often.

    What was imported never becomes garbage, and under load a look after every 700 new objects costs
    a tenth of all CPU (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _require_servers(stage: str, settings: Settings) -> None:
    needed = {
        "KAFKA_BOOTSTRAP_SERVERS": bool(settings.kafka_bootstrap_servers) or stage == "sandbox",
        "DATABASE_URL": bool(settings.database_url) or stage == "sandbox",
    }
    missing = [name for name, there in needed.items() if not there]
    if missing:
        raise InvalidInput(
            f"`nhood serve {stage}` needs {' and '.join(missing)}; `nhood up` starts servers of "
            "its own.",
            code="missing_setting",
        )


@app.command()
def topics(
    *,
    check: Annotated[bool, typer.Option("--check", help="Only tell; create nothing.")] = False,
) -> None:
    """Create the topics of topics.yaml on the broker and tell where it differs."""
    from schemas.provider import load_catalogue
    from schemas.topics import concrete_topics, load_topics, topics_file
    from wire.admin import ensure_topics

    settings = _live(_settings())
    slugs = [spec.slug for spec in load_catalogue()]
    report = ensure_topics(
        settings.kafka_bootstrap_servers,
        concrete_topics(load_topics(topics_file().read_text()), slugs),
        partitions=settings.topic_partitions,
        replication=settings.replication_factor,
        create=not check,
    )
    for name in report.created:
        _say(f"created {name}")
    for sentence in report.drift:
        _say(f"differs: {sentence}")
    if not report.created and not report.drift:
        _say("All topics are as topics.yaml declares them.")
    if check and report.drift:
        raise typer.Exit(1)


@app.command()
def rebuild(
    what: Annotated[str, typer.Argument(help="executions: the whole read side.")],
) -> None:
    """Make the read side's rows anew from the log."""
    if what != "executions":
        raise InvalidInput(f"{what!r} cannot be rebuilt; executions can.", code="bad_option")
    from control.projections.rebuild import rebuild as rebuild_rows

    counts = asyncio.run(rebuild_rows(_live(_settings())))
    _say("Rebuilt: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def _live(settings: Settings) -> Settings:
    """Take the addresses of the running stack where the environment names none.

    Raises:
        InvalidInput: Nothing runs and nothing is named.
    """
    if settings.kafka_bootstrap_servers:
        return settings
    state = read_state(_folder(settings))
    if not state.is_up:
        raise InvalidInput(
            "Nothing is running here: start it with `nhood up`, or set KAFKA_BOOTSTRAP_SERVERS and "
            "DATABASE_URL.",
            code="not_up",
        )
    return Settings.from_env({**os.environ, **state.env})  # noqa: TID251 - laid over what it was


def _with_database() -> Settings:
    """Take the database that the environment names, or the running stack's."""
    settings = _settings()
    return settings if settings.database_url else _live(settings)


app.add_typer(people.build(_with_database, _say), name="people")
app.add_typer(keys.build(_with_database, _say), name="keys")
app.add_typer(dlq_cli.build(lambda: _live(_settings()), _say), name="dlq")
app.add_typer(providers_cli.build(_say), name="providers")
app.add_typer(sandbox_cli.build(lambda: _live(_settings()), _say), name="sandbox")
app.add_typer(replay_cli.build(lambda: _live(_settings()), _say), name="replay")
verify_cli.add(app, lambda: _live(_settings()), _say)


def main() -> None:
    """Run the command; a failure is one sentence on stderr and exit code 1."""
    try:
        app()
    except NeighbourhoodError as error:
        if os.environ.get("NHOOD_LOG_LEVEL") == "debug":  # noqa: TID251 - before settings exist
            raise
        _err.print(f"error: {error.public}", markup=False)
        raise SystemExit(1) from None
