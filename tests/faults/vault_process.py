"""A process with a vault of its own, for tests of races and crashes; told by its environment what.

`python -m tests.faults.vault_process steps <workspace> <slug> <action> <count>`
    says `ready`, waits for a line, carries out so many steps and prints how they ended as JSON
`python -m tests.faults.vault_process die <workspace> <slug> <point>`
    refreshes the connection and is killed with -9 at the named point
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter

import orjson

from executors.runtime.driver import Driver
from schemas.events import Payload, RequestStep
from schemas.provider import load_catalogue
from schemas.settings import Settings
from token_vault.scheduler import Scheduler
from token_vault.vault import Vault
from wire.calls import AiohttpCalls
from wire.clock import mint, now_us
from wire.database import open_pool
from wire.http import allowed_by

USER = "u1"


def command(workspace: str, slug: str, action: str, params: object) -> RequestStep:
    return RequestStep(
        workspace_id=workspace, execution_id=mint("ex"), workflow_id="wf", version=1,
        step_id="s", loop_index=0, effect_key=mint("ev"), provider=slug, action=action,
        params=Payload(orjson.dumps(params)), mode="test", user=USER, connection_id=None,
        order_key=None, max_attempts=1, retry_delay_ms=1, retry_max_delay_ms=1,
        timeout_ms=60_000, on_unknown="fail", state=Payload(b"{}"), requested_at_us=now_us(),
    )  # fmt: skip


async def steps(vault: Vault, workspace: str, slug: str, action: str, count: int) -> None:
    """Carry steps out beside a scheduler, all at once."""
    spec = vault.catalogue.get(slug)
    params = spec.action(action).example.params
    async with AiohttpCalls(allowed_by(vault.settings)) as calls:
        driver = Driver(calls, vault.tokens, vault.settings)
        await vault.tokens.resolve(workspace, "test", slug, USER)  # as one that runs for long
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        scheduler = Scheduler(vault.tokens)
        ended, _ = await asyncio.gather(
            asyncio.gather(
                *(
                    driver.run(command(workspace, slug, action, params), spec, spec.action(action))
                    for _ in range(count)
                )
            ),
            scheduler.turn(),
        )
        await scheduler.drain()
    outcomes = Counter(f"{one.outcome.kind} {one.outcome.code}".strip() for one in ended)
    print(json.dumps(outcomes), flush=True)


async def die(vault: Vault, workspace: str, slug: str, point: str) -> None:
    """Refresh, and be killed on the way."""

    def reached(where: str) -> None:
        if where == point:
            os.kill(os.getpid(), signal.SIGKILL)

    vault.tokens.refresher.reached = reached
    credential = await vault.tokens.resolve(workspace, "test", slug, USER)
    await vault.tokens.refreshed(credential)


async def main(what: str, *words: str) -> None:
    settings = Settings.from_env()
    pool = await open_pool(settings.database_url.reveal(), max_size=4)
    vault = await Vault.open(settings, pool, load_catalogue())
    if what == "steps":
        await steps(vault, words[0], words[1], words[2], int(words[3]))
    else:
        await die(vault, *words)
    await vault.close()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
