"""Refresh by the clock: shared by processes, patient with vendors, and told to whoever wants it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from psycopg.types.json import Jsonb
from standardwebhooks import Webhook
from starlette.requests import Request
from starlette.responses import Response

from schemas import codec
from schemas.errors import Conflict, DependencyDown
from schemas.events import ConnectionChanged
from schemas.settings import Secret
from schemas.topics import CONNECTIONS
from tests.integration.refresh_parts import (
    bring_due,
    changes_of,
    credential_of,
    pass_time,
    refreshes,
    works,
)
from tests.integration.vault_parts import Site, open_site
from token_vault import changes
from token_vault import scheduler as scheduling
from token_vault.events_routes import build_router
from token_vault.notices import PAUSES_S, Notices
from token_vault.outbox import publish_some
from token_vault.scheduler import Scheduler
from token_vault.store import Connection
from token_vault.vault import Vault
from wire import problems
from wire.bus import MemoryBus
from wire.serving import bind, build_server

INVALID_GRANT = {"status": 400, "body": {"error": "invalid_grant"}}
DOWN = {"status": 503, "body": {}}
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as opened:
        yield opened
        await opened.sql("UPDATE connections SET refresh_at = NULL")


async def by_the_clock(*schedulers: Scheduler) -> None:
    """Let schedulers refresh what is due."""
    while any([await scheduler.turn() for scheduler in schedulers]):
        pass
    for scheduler in schedulers:
        await scheduler.drain()


async def state_of(site: Site, made: Connection) -> str:
    return (await site.row(made)).state


async def test_connection_is_refreshed_by_the_clock_at_80_percent_of_its_life(site: Site) -> None:
    made = await site.connect("jira")
    ((left,),) = await site.sql("SELECT refresh_at - now() FROM connections WHERE id = %s", made.id)
    assert timedelta(minutes=44) < left <= timedelta(minutes=48)  # of 60
    await by_the_clock(Scheduler(site.vault.tokens))
    assert await refreshes(site, "jira") == 0
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    row = await site.row(made)
    assert (row.state, row.credential_version, row.lease_until) == ("active", 2, None)
    ((left,),) = await site.sql("SELECT refresh_at - now() FROM connections WHERE id = %s", made.id)
    assert left > timedelta(minutes=44)
    assert await works(site, "jira", await credential_of(site, "jira"))


async def test_token_without_an_end_is_left_alone(site: Site) -> None:
    made = await site.connect("slack")
    ((at,),) = await site.sql("SELECT refresh_at FROM connections WHERE id = %s", made.id)
    assert at is None


async def test_clock_takes_over_from_a_process_that_died_refreshing_for_a_step(site: Site) -> None:
    made = await site.connect("jira")
    await site.sql("UPDATE connections SET refresh_at = NULL WHERE id = %s", made.id)
    leases = site.vault.tokens.refresher.leases
    assert await leases.lease(site.workspace, made.id, 1, "dead", reason="refused") is not None
    assert await state_of(site, made) == "refreshing"
    await by_the_clock(Scheduler(site.vault.tokens))
    assert await refreshes(site, "jira") == 0  # it may live
    await site.sql("UPDATE connections SET lease_until = now() - interval '1 s'")
    await by_the_clock(Scheduler(site.vault.tokens))
    row = await site.row(made)
    assert (row.state, row.credential_version, row.unsettled_since) == ("active", 2, None)


async def test_schedulers_of_many_processes_refresh_each_connection_once(site: Site) -> None:
    made = [await site.connect("zendesk", f"u{n}") for n in range(40)]
    vaults = [site.vault, *[await site.another() for _ in range(3)]]
    await site.sandbox.fault("zendesk", "oauth.token", {"delay_ms": 20}, times=40)
    await bring_due(site, *made)
    await asyncio.gather(*(by_the_clock(Scheduler(vault.tokens)) for vault in vaults))
    assert await refreshes(site, "zendesk") == 40
    assert Counter([(await site.row(one)).credential_version for one in made]) == {2: 40}


async def test_vendor_that_does_not_answer_holds_up_only_its_own(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "PER_PROVIDER", 2)
    slow = [await site.connect("jira", f"u{n}") for n in range(5)]
    quick = [await site.connect("zendesk", f"u{n}") for n in range(5)]
    await site.sandbox.fault("jira", "oauth.token", {"delay_ms": 1_000}, times=5)
    await bring_due(site, *slow)
    await asyncio.sleep(0.01)
    await bring_due(site, *quick)  # behind them in the queue
    scheduler = Scheduler(site.vault.tokens)
    async with asyncio.timeout(20):
        while [(await site.row(one)).credential_version for one in quick] != [2] * 5:
            assert await scheduler.turn()
    # Five of them, two at a time, take three seconds.
    assert [(await site.row(one)).credential_version for one in slow].count(1) > 0
    await by_the_clock(scheduler)
    assert [(await site.row(one)).credential_version for one in slow] == [2] * 5


async def test_outage_is_tried_again_with_growing_pauses_while_the_token_is_used(
    site: Site,
) -> None:
    made = await site.connect("jira")
    await site.sandbox.fault("jira", "oauth.token", DOWN, times=4)
    pauses = []
    for failures in range(1, 5):
        await bring_due(site, made)
        await by_the_clock(Scheduler(site.vault.tokens))
        row = await site.row(made)
        assert (row.state, row.refresh_failures) == ("degraded", failures)
        ((pause,),) = await site.sql(
            "SELECT extract(epoch FROM refresh_at - updated_at)::float FROM connections"
            " WHERE id = %s",
            made.id,
        )
        pauses.append(pause)
        assert await works(site, "jira", await credential_of(site, "jira"))
    for doubled, pause in enumerate(pauses):
        assert 2**doubled / 2 <= pause <= 2**doubled
    # A step whose token is refused meanwhile does not ask at once again.
    before = await refreshes(site, "jira")
    with pytest.raises(DependencyDown) as caught:
        await site.vault.tokens.refreshed(await credential_of(site, "jira"))
    assert caught.value.code == "refresh_paused"
    assert await refreshes(site, "jira") == before
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    row = await site.row(made)
    assert (row.state, row.refresh_failures, row.last_error) == ("active", 0, None)


async def test_dead_grant_is_not_asked_for_again_until_it_is_connected_anew(site: Site) -> None:
    made = await site.connect("jira")
    await site.sandbox.fault("jira", "oauth.token", INVALID_GRANT)
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    assert await state_of(site, made) == "needs_reauth"
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    assert await refreshes(site, "jira") == 1
    await site.connect("jira")
    assert await state_of(site, made) == "active"


async def test_lost_answer_is_the_reason_where_the_vendor_refuses_the_token_of_before(
    site: Site,
) -> None:
    made = await site.connect("zendesk")
    await site.sandbox.fault("zendesk", "oauth.token", {"reset": "after"})
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    row = await site.row(made)
    assert row.state == "degraded"
    assert row.unsettled_since is not None
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    row = await site.row(made)
    assert row.state == "needs_reauth"
    assert row.last_error is not None
    assert row.last_error["code"] == "answer_lost"
    assert "was lost before it was stored" in row.last_error["message"]


async def held(site: Site, made: Connection) -> Any:
    return await site.vault.sealer.open_credential(await site.row(made))


async def test_token_before_is_kept_until_the_new_one_is_proven(site: Site) -> None:
    made = await site.connect("jira")
    first = (await held(site, made)).refresh_token
    new = await site.vault.tokens.refreshed(await credential_of(site, "jira"))
    assert (await held(site, made)).previous == first
    # The vendor forgets what it answered: the new pair is refused, the one before is tried once.
    body = {"access_token": "saved", "refresh_token": "saved-too", "expires_in": 3600}
    await site.sandbox.fault("jira", "oauth.token", INVALID_GRANT)
    await site.sandbox.fault("jira", "oauth.token", {"status": 200, "body": body})
    saved = await site.vault.tokens.refreshed(new)
    assert saved.header_value.reveal() == "Bearer saved"
    row = await site.row(made)
    assert (row.state, row.credential_version) == ("active", 3)


async def test_token_before_is_dropped_once_the_vendor_took_the_new_one(site: Site) -> None:
    made = await site.connect("jira")
    new = await site.vault.tokens.refreshed(await credential_of(site, "jira"))
    assert not new.proven
    site.vault.tokens.accepted(new)
    site.vault.tokens.accepted(new)
    async with asyncio.timeout(5):
        while (await held(site, made)).previous is not None:  # noqa: ASYNC110 - a row
            await asyncio.sleep(0.01)
    row = await site.row(made)
    assert (row.proven_version, row.credential_version) == (2, 2)
    proven = await credential_of(site, "jira")
    assert proven.proven
    await site.sandbox.fault("jira", "oauth.token", INVALID_GRANT)
    with pytest.raises(Conflict):
        await site.vault.tokens.refreshed(proven)
    assert await refreshes(site, "jira") == 2  # and not a third time with the one before
    assert await state_of(site, made) == "needs_reauth"


async def test_each_change_of_state_is_told_once_and_in_order(site: Site) -> None:
    made = await site.connect("jira")
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    await site.sandbox.fault("jira", "oauth.token", DOWN)
    with pytest.raises(DependencyDown):
        await site.vault.tokens.refreshed(await credential_of(site, "jira"))
    await pass_time(site, made)
    await site.sandbox.fault("jira", "oauth.token", INVALID_GRANT, times=2)
    with pytest.raises(Conflict):
        await site.vault.tokens.refreshed(await credential_of(site, "jira"))
    await site.connect("jira")
    await site.vault.disconnect(site.workspace, "test", made.id)
    expected = [
        (None, "active", "connected"),
        ("active", "refreshing", "due"),
        ("refreshing", "active", "refreshed"),
        ("active", "refreshing", "refused"),
        ("refreshing", "degraded", "http_503"),
        ("degraded", "refreshing", "refused"),
        ("refreshing", "needs_reauth", "invalid_grant"),
        ("needs_reauth", "active", "reconnected"),
        ("active", "revoked", "deleted"),
    ]
    assert await changes_of(site, made) == expected
    bus = MemoryBus({CONNECTIONS: 1})
    while await publish_some(site.pool, bus):
        pass
    await publish_some(site.pool, bus)
    told = [
        codec.decode_as(ConnectionChanged, stored.value)
        for stored in await bus.read(CONNECTIONS, 0, 0, 1_000)
        if stored.key == made.id.encode()
    ]
    assert [(c.before, c.after, c.reason) for c in told] == expected
    assert (told[0].workspace_id, told[0].user, told[0].mode) == (site.workspace, "u1", "test")
    assert len({change.event_id for change in told}) == len(expected)


async def test_old_changes_are_dropped_once_they_were_published(site: Site) -> None:
    made = await site.connect("jira")
    await site.vault.tokens.refreshed(await credential_of(site, "jira"))

    async def left(days: int) -> int:
        await site.sql(
            "UPDATE connection_events SET at = now() - make_interval(days => %s)"
            " WHERE connection_id = %s",
            days,
            made.id,
        )
        await changes.forget_old(site.pool)
        return len(await changes_of(site, made))

    assert await left(91) == 3
    await site.sql("UPDATE connection_events SET published_at = now()")
    assert await left(6) == 3
    assert await left(8) == 1  # that it was connected
    assert await left(91) == 0


async def test_change_that_kafka_did_not_take_is_published_later(site: Site) -> None:
    made = await site.connect("jira")
    with pytest.raises(DependencyDown):
        await publish_some(site.pool, MemoryBus({}))
    bus = MemoryBus({CONNECTIONS: 1})
    while await publish_some(site.pool, bus):
        pass
    keys = [stored.key for stored in await bus.read(CONNECTIONS, 0, 0, 1_000)]
    assert keys.count(made.id.encode()) == 1


async def test_changes_are_read_over_http_by_their_workspace_and_mode_only(site: Site) -> None:
    made = await site.connect("jira")
    await site.vault.tokens.refreshed(await credential_of(site, "jira"))
    other = replace(site.callers["test"], mode="live")

    async def ask(caller: Any, query: str = "") -> httpx.Response:
        async def authenticate(_: Any) -> Any:
            return caller

        app = FastAPI()
        problems.install(app)
        app.include_router(build_router(site.pool, authenticate))
        path = f"/api/v1/workspaces/{site.workspace}/connections/{made.id}/events{query}"
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get(path)

    shown = (await ask(site.callers["test"])).json()
    assert [item["after"] for item in shown["items"]] == ["active", "refreshing", "active"]
    assert shown["next_cursor"] is None
    first = (await ask(site.callers["test"], "?limit=2")).json()
    rest = (await ask(site.callers["test"], f"?limit=2&cursor={first['next_cursor']}")).json()
    assert [*first["items"], *rest["items"]] == shown["items"]
    assert (await ask(other)).json()["items"] == []


@dataclass
class Hook:
    """The developer's webhook: what came, and what it answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@asynccontextmanager
async def listening_hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = FastAPI()

    @app.post("/hook")
    async def take(request: Request) -> Response:
        hook.came.append((dict(request.headers), await request.body()))
        return Response(status_code=hook.statuses.pop(0) if hook.statuses else 200)

    server, listening = build_server(app), bind("127.0.0.1", 0, "TEST_HOOK_PORT")
    running = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
            await asyncio.sleep(0.005)
    hook.url = f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
    yield hook
    server.stop()
    await running
    listening.close()


async def prepare(site: Site, url: str | None) -> Connection:
    """Give the workspace a webhook, and a connection that dies."""
    sealed = await site.vault.seal_webhook_secret(site.workspace, Secret(SECRET))
    await site.sql(
        "UPDATE workspaces SET webhook_url = %s, webhook_secrets = %s WHERE id = %s",
        url,
        Jsonb([{"ciphertext": sealed, "expires_at": None}]),
        site.workspace,
    )
    await site.sql("UPDATE connection_events SET notify_at = NULL")
    made = await site.connect("jira")
    await site.sandbox.fault("jira", "oauth.token", INVALID_GRANT)
    await bring_due(site, made)
    await by_the_clock(Scheduler(site.vault.tokens))
    assert await state_of(site, made) == "needs_reauth"
    return made


@asynccontextmanager
async def telling(vault: Vault) -> AsyncIterator[Notices]:
    notices = Notices(vault)
    try:
        yield notices
    finally:
        await notices.close()


async def notice_of(site: Site, made: Connection) -> tuple[Any, ...]:
    (row,) = await site.sql(
        "SELECT notify_attempts, notified_at IS NOT NULL, notify_error,"
        " extract(epoch FROM notify_at - now())::float FROM connection_events"
        " WHERE connection_id = %s AND after = 'needs_reauth'",
        made.id,
    )
    return tuple(row)


async def test_developer_is_told_once_of_a_dead_connection_with_a_signature(site: Site) -> None:
    async with listening_hook() as hook:
        made = await prepare(site, hook.url)
        async with telling(site.vault) as notices, telling(await site.another()) as others:
            await asyncio.gather(notices.turn(), others.turn())
            for _ in range(3):
                await notices.turn()
        ((headers, body),) = hook.came
        told = Webhook(SECRET).verify(body, headers)
        assert told["type"] == "connection.needs_reauth"
        assert told["data"]["connection_id"] == made.id
        assert (told["data"]["user_id"], told["data"]["reason"]) == ("u1", "invalid_grant")
        assert await notice_of(site, made) == (1, True, None, None)


async def test_webhook_that_fails_is_told_again_later_under_the_same_id(site: Site) -> None:
    async with listening_hook() as hook, telling(site.vault) as notices:
        hook.statuses = [500, 302]
        made = await prepare(site, hook.url)
        for attempt, error in ((1, "http_500"), (2, "http_302")):
            await notices.turn()
            attempts, told, why, pause = await notice_of(site, made)
            assert (attempts, told, why) == (attempt, False, error)
            assert PAUSES_S[attempt - 1] - 5 < pause < PAUSES_S[attempt - 1] * 1.1
            await site.sql("UPDATE connection_events SET notify_at = now() WHERE notify_at > now()")
        await notices.turn()
        assert (await notice_of(site, made))[:3] == (3, True, None)
        assert len({headers["webhook-id"] for headers, _ in hook.came}) == 1
        assert len(hook.came) == 3


async def test_webhook_that_never_answers_is_given_up_in_the_end(site: Site) -> None:
    made = await prepare(site, "http://127.0.0.1:9/nobody")
    await site.sql("UPDATE connection_events SET notify_attempts = %s", len(PAUSES_S))
    async with telling(site.vault) as notices:
        await notices.turn()
    assert await notice_of(site, made) == (len(PAUSES_S) + 1, False, "connect_failed", None)


async def test_webhook_inside_our_network_is_not_called_in_production(site: Site) -> None:
    async with listening_hook() as hook:
        made = await prepare(site, hook.url)
        site.vault.settings = replace(site.settings, environment="production")
        async with telling(site.vault) as notices:
            await notices.turn()
        assert (await notice_of(site, made))[:3] == (1, False, "address_refused")
        assert hook.came == []


async def test_workspace_without_a_webhook_is_told_by_the_topic_only(site: Site) -> None:
    made = await prepare(site, None)
    async with telling(site.vault) as notices:
        await notices.turn()
    assert await notice_of(site, made) == (1, False, None, None)
