"""Polls on a real database against a running sandbox: each new thing becomes one event."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from psycopg.types.json import Jsonb

from executors.runtime import polling
from executors.runtime.driver import Driver
from executors.runtime.poll_rows import PollRows
from executors.runtime.polling import Polling
from nhood.sandbox.entered import PASTED_TOKEN
from schemas import codec
from schemas.errors import DependencyDown
from schemas.events import Event, Payload, RequestStep
from schemas.polling import polls_of
from schemas.topics import EVENTS
from tests.integration.sandbox_parts import CATALOGUE, CUSTOMER
from tests.integration.vault_parts import Site, open_site
from token_vault.store import Connection
from wire.bus import MemoryBus
from wire.calls import AiohttpCalls
from wire.clock import mint, now_us
from wire.http import allowed_by

# The events that the sandbox can let happen: params of the poll, an action that makes one.
STORIES: dict[tuple[str, str], tuple[dict[str, Any], str, dict[str, Any] | None]] = {
    ("discord", "message_sent"): ({"channel_id": "290926798999357250"}, "send_message", None),
    ("dropbox", "file_changed"): ({}, "create_folder", None),
    ("freshdesk", "ticket_changed"): ({}, "create_ticket", None),
    ("gmail", "message_received"): ({}, "send_message", None),
    ("google_drive", "file_changed"): ({}, "create_folder", None),
    ("onedrive", "item_changed"): ({}, "create_folder", None),
    ("salesforce", "record_created"): ({"object": "Lead"}, "create_lead", None),
    ("salesforce", "record_updated"): ({"object": "Lead"}, "create_lead", None),
    ("google_sheets", "row_added"): (
        {"spreadsheet_id": "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms", "range": "Q1!A:C"},
        "append_rows",
        {"range": "Q1!A:C"},
    ),
}
# Their answers are always the same in the sandbox.
CONSTANT = {("excel_online", "row_added"), ("metabase", "row_added")}


class FullBus(MemoryBus):
    """A broker that can be away."""

    away = False

    async def publish(self, records: Any) -> Any:
        if self.away:
            return [DependencyDown("Kafka is away.", code="kafka_down") for _ in records]
        return await super().publish(records)


@dataclass
class Desk:
    """Polls and what they put onto the log."""

    site: Site
    bus: FullBus
    driver: Driver
    polling: Polling

    async def add(
        self, connection: Connection, event: str, params: dict[str, Any], every_s: int = 60
    ) -> str:
        name = mint("poll")
        await self.site.sql(
            "INSERT INTO polls (id, workspace_id, mode, provider, event, connection_id, params,"
            " every_s, next_at) VALUES (%s, %s, 'test', %s, %s, %s, %s, %s, now())",
            *(name, connection.workspace_id, connection.provider, event, connection.id),
            *(Jsonb(params), every_s),
        )
        return name

    async def look(self, poll: str) -> None:
        await self.site.sql("UPDATE polls SET next_at = now() WHERE id = %s", poll)
        await self.polling.turn()

    async def row(self, poll: str) -> dict[str, Any]:
        columns = (
            "state", "turn", "found", "failures", "error_code", "error", "missed_from",
            "missed_to", "looked_at", "next_at",
        )  # fmt: skip
        (row,) = await self.site.sql(f"SELECT {', '.join(columns)} FROM polls WHERE id = %s", poll)
        return dict(zip(columns, row, strict=True))

    async def events(self) -> list[tuple[dict[str, bytes], Event]]:
        stored = await self.bus.read(EVENTS, 0, 0, 1_000)
        return [(dict(item.headers), codec.decode_as(Event, item.value)) for item in stored]

    async def connected(self, slug: str, user: str = "u1") -> Connection:
        """Connect an account as the vendor is usually connected."""
        spec = CATALOGUE.get(slug)
        if spec.auth.kind == "oauth2":
            return await self.site.connect(slug, user)
        body = {
            "provider": slug,
            "user_id": user,
            "variables": CUSTOMER[slug],
            "credentials": {item.name: PASTED_TOKEN for item in spec.auth.credentials},
        }
        path = f"/api/v1/workspaces/{self.site.workspace}/connections"
        answer = await self.site.call("POST", path, json=body)
        assert answer.status_code == 201, answer.text
        (found,) = await self.site.vault.store.find(self.site.workspace, "test", slug, user)
        return found


@asynccontextmanager
async def open_desk(database: str, folder: Path) -> AsyncIterator[Desk]:
    async with (
        open_site(database, folder) as site,
        AiohttpCalls(allowed_by(site.settings)) as calls,
    ):
        bus = FullBus({EVENTS: 1})
        driver = Driver(calls, site.vault.tokens, site.settings)
        slugs = [spec.slug for spec in CATALOGUE]
        rows = PollRows(site.pool)
        yield Desk(site, bus, driver, Polling(rows, site.vault.catalogue, driver, bus, slugs))
        await site.sql("DELETE FROM polls")


@pytest.fixture
async def desk(database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(database, tmp_path) as made:
        yield made


async def begin(desk: Desk, poll: str) -> None:
    """Look until it knows its place, and once more for what was there before."""
    for _ in range(2):
        await desk.look(poll)
    row = await desk.row(poll)
    assert row["error"] is None
    assert row["state"] is not None


async def happen(desk: Desk, connection: Connection, action: str, params: Any = None) -> None:
    """Let something happen at the vendor, by the account that the poll looks at."""
    spec = CATALOGUE.get(connection.provider)
    said = {**spec.action(action).example.params, **(params or {})}
    command = RequestStep(
        workspace_id=connection.workspace_id, execution_id=mint("ex"), workflow_id="wf", version=1,
        step_id="s", loop_index=0, effect_key=mint("ev"), provider=spec.slug, action=action,
        params=Payload(orjson.dumps(said)), mode="test", user=None, connection_id=connection.id,
        order_key=None, max_attempts=1, retry_delay_ms=1, retry_max_delay_ms=2, timeout_ms=5_000,
        on_unknown="fail", state=Payload(b"{}"), requested_at_us=now_us(),
    )  # fmt: skip
    carried = await desk.driver.run(command, spec, spec.action(action))
    assert carried.outcome.kind == "succeeded", carried.outcome


def test_every_poll_has_a_story_or_says_why_not() -> None:
    known = {(spec.slug, event) for spec in CATALOGUE for event in polls_of(spec)}
    assert known == STORIES.keys() | CONSTANT


@pytest.mark.parametrize(("slug", "event"), sorted(STORIES))
async def test_what_happens_is_told_once(desk: Desk, slug: str, event: str) -> None:
    params, action, said = STORIES[slug, event]
    connection = await desk.connected(slug)
    poll = await desk.add(connection, event, params)
    await begin(desk, poll)
    assert await desk.events() == []
    await happen(desk, connection, action, said)
    for _ in range(3):
        await desk.look(poll)
    ((headers, told),) = await desk.events()
    assert headers["ce_subject"].decode() == f"{slug}/{event}"
    assert headers["ce_workspace"].decode() == connection.workspace_id
    assert (told.user, told.mode, told.headers["nhood-provider"]) == ("u1", "test", slug)
    assert orjson.loads(told.data.data)
    row = await desk.row(poll)
    assert (row["found"], row["error"], row["missed_from"]) == (1, None, None)


async def test_polls_of_constant_answers_tell_nothing(desk: Desk) -> None:
    for slug, event in sorted(CONSTANT):
        example = polls_of(CATALOGUE.get(slug))[event].example
        poll = await desk.add(await desk.connected(slug), event, dict(example))
        await begin(desk, poll)
        await desk.look(poll)
    assert await desk.events() == []


async def test_a_look_that_was_not_noted_tells_the_same_events_again(desk: Desk) -> None:
    connection = await desk.connected("freshdesk")
    poll = await desk.add(connection, "ticket_changed", {})
    await begin(desk, poll)
    before = await desk.row(poll)
    await happen(desk, connection, "create_ticket")
    await desk.look(poll)
    await desk.site.sql(  # as if the process had died between Kafka's ack and this
        "UPDATE polls SET state = %s, turn = %s, found = 0 WHERE id = %s",
        *(Jsonb(before["state"]), before["turn"], poll),
    )
    await happen(desk, connection, "create_ticket")
    await desk.look(poll)
    ids = [headers["ce_id"] for headers, _ in await desk.events()]
    assert (len(ids), len(set(ids))) == (3, 2)


async def test_nothing_moves_on_while_kafka_is_away(desk: Desk) -> None:
    connection = await desk.connected("freshdesk")
    poll = await desk.add(connection, "ticket_changed", {})
    await begin(desk, poll)
    await happen(desk, connection, "create_ticket")
    desk.bus.away = True
    await desk.look(poll)
    row = await desk.row(poll)
    assert (row["error_code"], row["failures"], row["found"]) == ("kafka_down", 1, 0)
    desk.bus.away = False
    await desk.look(poll)
    row = await desk.row(poll)
    assert (row["error"], row["failures"], row["found"]) == (None, 0, 1)


async def test_a_vendor_that_refuses_is_asked_less_and_less_often(desk: Desk) -> None:
    poll = await desk.add(await desk.connected("freshdesk"), "ticket_changed", {})
    await begin(desk, poll)
    waits = []
    for _ in range(3):
        await desk.site.sandbox.fault("freshdesk", "list_tickets", {"status": 403})
        await desk.look(poll)
        row = await desk.row(poll)
        ((wait,),) = await desk.site.sql(
            "SELECT extract(epoch FROM next_at - now())::int FROM polls WHERE id = %s", poll
        )
        waits.append(wait)
        assert row["error"]
    assert waits == sorted(set(waits))
    assert waits[-1] > 200


async def test_a_place_that_the_vendor_forgot_is_begun_anew_and_told(desk: Desk) -> None:
    connection = await desk.connected("dropbox")
    poll = await desk.add(connection, "file_changed", {})
    await begin(desk, poll)
    good = (await desk.row(poll))["looked_at"]
    body = {"error_summary": "reset/..", "error": {".tag": "reset"}}
    await desk.site.sandbox.fault("dropbox", "list_folder_continue", {"status": 409, "body": body})
    await desk.look(poll)
    row = await desk.row(poll)
    assert (row["state"], row["missed_from"], row["missed_to"]) == (None, good, None)
    await begin(desk, poll)
    row = await desk.row(poll)
    assert row["missed_to"] > good
    await happen(desk, connection, "create_folder")
    await desk.look(poll)
    assert len(await desk.events()) == 1


async def test_two_processes_do_not_look_at_the_same_time(desk: Desk) -> None:
    connection = await desk.connected("freshdesk")
    polls = [await desk.add(connection, "ticket_changed", {}) for _ in range(5)]
    rows = PollRows(desk.site.pool)
    taken = [row.id for row in await rows.lease(["freshdesk"], 3)]
    others = [row.id for row in await rows.lease(["freshdesk"], 10)]
    assert sorted(taken + others) == sorted(polls)
    assert await rows.lease(["freshdesk"], 10) == []


async def test_one_that_was_moved_on_by_another_is_not_moved_back(desk: Desk) -> None:
    poll = await desk.add(await desk.connected("freshdesk"), "ticket_changed", {})
    rows = PollRows(desk.site.pool)
    (late,) = await rows.lease(["freshdesk"], 1)
    await desk.look(poll)
    assert not await rows.moved(late, {"cursor": "old", "seen": []}, 1, again=False)
    assert (await desk.row(poll))["state"]["cursor"] != "old"


async def test_only_served_providers_and_only_what_goes_on(desk: Desk) -> None:
    connection = await desk.connected("freshdesk")
    paused = await desk.add(connection, "ticket_changed", {})
    await desk.site.sql("UPDATE polls SET next_at = NULL WHERE id = %s", paused)
    await desk.add(connection, "ticket_changed", {})
    rows = PollRows(desk.site.pool)
    assert await rows.lease(["slack"], 10) == []
    assert [row.id for row in await rows.lease(["freshdesk"], 10)] != [paused]


async def test_what_is_too_large_for_an_event_is_told_without_its_content(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "EVENT_BYTES_MAX", 100)
    connection = await desk.connected("freshdesk")
    poll = await desk.add(connection, "ticket_changed", {})
    await begin(desk, poll)
    await happen(desk, connection, "create_ticket")
    await desk.look(poll)
    ((_, told),) = await desk.events()
    assert "up to 100" in orjson.loads(told.data.data)["left_out"]


async def test_polls_go_with_their_connection(desk: Desk) -> None:
    connection = await desk.connected("freshdesk")
    poll = await desk.add(connection, "ticket_changed", {})
    await desk.site.sql("DELETE FROM connections WHERE id = %s", connection.id)
    assert await desk.site.sql("SELECT id FROM polls WHERE id = %s", poll) == []


async def test_no_record_is_written_for_a_dead_connection(desk: Desk) -> None:
    connection = await desk.connected("gmail")
    poll = await desk.add(connection, "message_received", {})
    await begin(desk, poll)
    credential = await desk.site.vault.tokens.resolve(
        connection.workspace_id, "test", "gmail", None, connection.id
    )
    token = credential.header_value.reveal().removeprefix("Bearer ")
    desk.site.sandbox.app.world.grants.revoke_token(token)
    await desk.look(poll)
    row = await desk.row(poll)
    assert row["error_code"] == "needs_reauth"
    assert await desk.events() == []
