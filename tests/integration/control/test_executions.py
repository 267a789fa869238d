"""Executions and events over HTTP, told from the read tables."""

import asyncio
import json

import orjson
import pytest

from control.projections.executions import Changes
from control.projections.rows import write
from schemas import codec
from schemas.events import (
    CancelRequested,
    Envelope,
    Event,
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    Place,
    StepError,
    StepFinished,
)
from schemas.ids import execution_id
from schemas.topics import EVENTS, EXECUTIONS, RESULTS
from wire.bus import Record, partition_of
from wire.clock import mint, now_us

DEFINITION = {
    "name": "Ticket",
    "trigger": {"type": "webhook", "path": "/t"},
    "steps": [
        {
            "id": "check",
            "type": "condition",
            "condition": "{{n}} == 1",
            "then": ["a"],
            "else": ["b"],
        },
        {"id": "a", "provider": "slack", "action": "send_message"},
        {"id": "b", "provider": "slack", "action": "send_message"},
    ],
}
for step in DEFINITION["steps"][1:]:
    step["config"] = {"channel": "#x", "text": "hello"}
OFFSETS = iter(range(10_000_000))


class Story:
    """The facts of one execution, written to the read tables bit by bit."""

    def __init__(self, api, workflow, *, mode="test", user="cust_1", at_us=None):
        self.api, self.workspace = api, api.workspace["workspace_id"]
        self.event_id = mint("ev")
        self.at = at_us or now_us()
        self.place = Place(EVENTS, 0, next(OFFSETS))
        self.id = execution_id(self.event_id, workflow, 1, 0)
        self.head = (self.workspace, self.id, workflow, 1)
        self.mode, self.user = mode, user

    async def write(self, *facts):
        changes = Changes()
        for fact in facts:
            topic = RESULTS if isinstance(fact, StepFinished) else EXECUTIONS
            changes.take(Place(topic, 2, next(OFFSETS)), fact)
        async with self.api.ports.pool.connection() as on:
            await write(on, changes)

    def outcome(self, word="matched", reason=""):
        names = [self.id] if word == "matched" else []
        return EventOutcome(
            self.workspace,
            self.event_id,
            self.place,
            word,
            reason,
            names,
            "nhood.webhook",
            "/t",
            self.mode,
            self.at,
            self.at + 1000,
        )

    def started(self):
        return ExecutionStarted(
            *self.head,
            "Ticket",
            self.mode,
            self.user,
            self.event_id,
            self.place,
            0,
            self.at,
            self.at + 2000,
        )

    def step(self, name="a", outcome="succeeded"):
        error = None if outcome == "succeeded" else StepError("channel_not_found", "No channel.")
        return StepFinished(
            *self.head,
            step_id=name,
            loop_index=0,
            effect_key="e" * 40,
            provider="slack",
            action="send_message",
            outcome=outcome,
            output=Payload(b'{"ts":"17.1"}'),
            output_cut=False,
            vendor_id="17.1",
            error=error,
            attempts=b'[{"number":1,"status":200}]',
            request=Payload(b'{"method":"POST","url":"https://slack.com/api/chat.postMessage"}'),
            response=Payload(b'{"status":200}'),
            connection_id="conn_1",
            from_ledger=False,
            command=Place("nhood.steps.slack.v1", 1, 5),
            state=Payload(b""),
            requested_at_us=self.at + 3000,
            started_at_us=self.at + 4000,
            finished_at_us=self.at + 9000,
        )

    def finished(self, status="succeeded"):
        error = StepError("channel_not_found", "No channel.") if status == "failed" else None
        steps = {
            "check": {"status": "true", "operands": {"n": 1}},
            "a": {"status": status},
            "b": {"status": "skipped", "reason": "not_chosen"},
        }
        return ExecutionFinished(
            *self.head, self.mode, status, error, orjson.dumps(steps), self.at + 10_000
        )

    def all(self, status="succeeded"):
        step = self.step(outcome="succeeded" if status == "succeeded" else "rejected")
        return self.outcome(), self.started(), step, self.finished(status)


@pytest.fixture
async def workflow(api):
    answer = await api.call("POST", "/workflows", DEFINITION)
    assert answer.status_code == 201, answer.text
    return answer.json()["workflow_id"]


async def test_timeline_tells_everything_in_order(api, workflow):
    story = Story(api, workflow)
    await story.write(*story.all())
    shown = (await api.call("GET", f"/executions/{story.id}")).json()
    assert shown["status"] == "succeeded"
    assert shown["duration_ms"] == 8.0
    kinds = [entry["kind"] for entry in shown["timeline"]]
    assert kinds == [
        *("event_accepted", "event_outcome", "execution_started"),
        *("condition", "step", "step", "execution_finished"),
    ]
    accepted, outcome, _, check, step, skipped, finished = shown["timeline"]
    assert accepted["place"] == {"topic": EVENTS, "partition": 0, "offset": story.place.offset}
    assert (accepted["subject"], outcome["outcome"]) == ("/t", "matched")
    condition = {"text": "{{n}} == 1", "value": True, "operands": {"n": 1}}
    assert check["step"]["condition"] == condition
    ran = step["step"]
    assert (ran["step_id"], ran["status"], ran["outcome"]) == ("a", "succeeded", "succeeded")
    assert (ran["waited_ms"], ran["duration_ms"]) == (1.0, 5.0)
    assert ran["command_place"] == {
        "topic": "nhood.steps.slack.v1",
        "partition": 1,
        "offset": 5,
    }
    assert ran["result_place"]["topic"] == RESULTS
    assert ran["request"]["url"] == "https://slack.com/api/chat.postMessage"
    assert ran["attempts"] == [{"number": 1, "status": 200}]
    assert (skipped["step"]["status"], skipped["step"]["reason"]) == ("skipped", "not_chosen")
    assert finished["place"]["topic"] == EXECUTIONS


async def test_running_execution_shows_what_is_still_to_come(api, workflow):
    story = Story(api, workflow)
    await story.write(story.outcome(), story.started())
    shown = (await api.call("GET", f"/executions/{story.id}")).json()
    assert (shown["status"], shown["finished_at"]) == ("running", None)
    steps = {e["step"]["step_id"]: e["step"]["status"] for e in shown["timeline"] if e["step"]}
    assert steps == {"check": "pending", "a": "pending", "b": "pending"}


async def test_execution_that_appears_while_it_is_asked_for_is_found(api, workflow):
    story = Story(api, workflow)
    asked = asyncio.create_task(api.call("GET", f"/executions/{story.id}"))
    await asyncio.sleep(0.1)
    await story.write(story.started())
    assert (await asked).status_code == 200


async def test_waiting_ends_with_the_execution(api, workflow):
    story = Story(api, workflow)
    await story.write(story.started())
    asked = asyncio.create_task(api.call("GET", f"/executions/{story.id}", params={"wait": 20}))
    await asyncio.sleep(0.1)
    assert not asked.done()
    await story.write(story.finished("failed"))
    shown = (await asyncio.wait_for(asked, 5)).json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "channel_not_found")


async def test_waiting_gives_what_is_known_when_the_time_is_up(api, workflow):
    story = Story(api, workflow)
    await story.write(story.started())
    shown = await api.call("GET", f"/executions/{story.id}", params={"wait": 0.1})
    assert (shown.status_code, shown.json()["status"]) == (200, "running")


async def test_unknown_execution_is_told_with_a_hint(api):
    answer = await api.call("GET", f"/executions/ex_{'0' * 26}")
    assert (answer.status_code, answer.json()["code"]) == (404, "execution_not_found")
    assert "?wait=5" in answer.json()["detail"]
    assert (await api.call("GET", "/executions/nonsense%00")).status_code == 404


async def test_executions_are_seen_by_their_workspace_and_mode_only(api, other, workflow):
    story = Story(api, workflow)
    await story.write(*story.all())
    live = {"Authorization": f"Bearer {api.workspace['api_key']}"}
    for path in (f"/executions/{story.id}?wait=0", f"/events/{story.event_id}?wait=0"):
        assert (await api.call("GET", path)).status_code == 200
        assert (await api.call("GET", path, headers=live)).status_code == 404
        assert (await other.call("GET", path)).status_code == 404
    assert (await other.call("GET", "/executions")).json()["items"] == []
    assert (await other.call("POST", f"/executions/{story.id}/cancel")).status_code == 404


async def test_list_filters_and_pages_newest_first(api, workflow):
    begun = now_us()
    stories = [
        Story(api, workflow, user=f"cust_{n % 2}", at_us=begun + n * 1_000_000) for n in range(7)
    ]
    for n, story in enumerate(stories):
        await story.write(*(story.all() if n % 3 else [story.outcome(), story.started()]))

    async def names(**query):
        seen = []
        while True:
            answer = await api.call("GET", "/executions", params={"limit": 2, **query})
            assert answer.status_code == 200, answer.text
            seen += [item["execution_id"] for item in answer.json()["items"]]
            if answer.json()["next_cursor"] is None:
                return seen
            query["cursor"] = answer.json()["next_cursor"]

    every = [story.id for story in stories][::-1]
    assert await names() == every
    assert await names(status="running") == [stories[n].id for n in (6, 3, 0)]
    assert await names(user_id="cust_1") == [stories[n].id for n in (5, 3, 1)]
    assert await names(workflow_id=workflow) == every
    assert await names(workflow_id="wf_none") == []
    shown = (await api.call("GET", f"/executions/{stories[2].id}")).json()["started_at"]
    assert await names(since=shown) == [story.id for story in stories[2:]][::-1]
    assert await names(until=shown) == [stories[1].id, stories[0].id]


async def test_cursor_of_another_list_is_refused(api, workflow):
    for _ in range(2):
        story = Story(api, workflow)
        await story.write(story.started())
    page = (await api.call("GET", "/executions", params={"limit": 1})).json()
    for query in (
        {"cursor": page["next_cursor"], "status": "failed"},
        {"cursor": page["next_cursor"][:-3]},
        {"cursor": "AAAA"},
        {"cursor": "not base 64 !"},
    ):
        answer = await api.call("GET", "/executions", params=query)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor")


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 201},
        {"status": "done"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"statuss": "failed"},
        {"user_id": "a\x00b"},
    ],
)
async def test_wrong_filters_are_refused(api, query):
    answer = await api.call("GET", "/executions", params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_cancel_goes_to_the_log_under_the_executions_key(api, workflow):
    story = Story(api, workflow)
    await story.write(story.started())
    answer = await api.call("POST", f"/executions/{story.id}/cancel", {"reason": "wrong customer"})
    assert (answer.status_code, answer.json()["status"]) == (202, "cancel_requested")
    place = answer.json()["place"]
    (stored,) = await api.bus.read(place["topic"], place["partition"], place["offset"], 1)
    assert (place["topic"], stored.key) == (RESULTS, story.id.encode())
    request = codec.decode_as(CancelRequested, stored.value)
    assert (request.execution_id, request.reason) == (story.id, "wrong customer")


async def park(api, story, step_id="a"):
    """Let a step of an execution wait, as the executors do."""
    async with api.ports.pool.connection() as on:
        await on.execute(
            "INSERT INTO parked_steps (effect_key, workspace_id, execution_id, step_id, loop_index,"
            " mode, provider, action, connection_id, reason, message, topic, partition,"
            ' "offset", value, headers, requested_at, parked_at, deadline)'
            " VALUES (%s, %s, %s, %s, 0, 'test', 'slack', 'send_message', 'conn_1', 'needs_reauth',"
            " 'Connect again.', 'nhood.steps.slack.v1', 0, 1, '', '{}', now(), now(),"
            " now() + interval '72 h')",
            (mint("ev"), story.workspace, story.id, step_id),
        )


async def test_step_that_waits_for_its_customer_is_shown_until_the_execution_is_cancelled(
    api, workflow
):
    story = Story(api, workflow)
    await story.write(story.started())
    await park(api, story)

    async def step():
        answer = await api.call("GET", f"/executions/{story.id}")
        assert answer.status_code == 200, answer.text
        told = [entry["step"] for entry in answer.json()["timeline"] if entry["step"]]
        return next(step for step in told if step["step_id"] == "a")

    shown = await step()
    assert (shown["status"], shown["reason"]) == ("waiting", "needs_reauth")
    assert shown["error"] == {"code": "needs_reauth", "message": "Connect again.", "detail": None}
    assert shown["waits_since"] < shown["waits_until"]
    assert (await api.call("POST", f"/executions/{story.id}/cancel")).status_code == 202
    assert (await step())["status"] == "pending"
    await park(api, story)
    wish = {"workflow_id": workflow, "status": "running"}
    assert (await api.call("POST", "/executions/cancel", wish)).status_code == 202
    assert (await step())["status"] == "pending"


async def test_finished_execution_cannot_be_cancelled(api, workflow):
    story = Story(api, workflow)
    await story.write(*story.all())
    answer = await api.call("POST", f"/executions/{story.id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_finished")


async def test_event_tells_its_outcome_and_executions(api, workflow):
    story = Story(api, workflow)
    await story.write(story.outcome())
    shown = (await api.call("GET", f"/events/{story.event_id}")).json()
    assert (shown["outcome"], shown["place"]["offset"]) == ("matched", story.place.offset)
    assert shown["executions"] == [{"execution_id": story.id, "status": "pending"}]
    assert (shown["payload"], shown["repeats"]) == (None, [])
    await story.write(story.started(), story.finished())
    shown = (await api.call("GET", f"/events/{story.event_id}")).json()
    assert shown["executions"] == [{"execution_id": story.id, "status": "succeeded"}]


async def test_event_sent_twice_shows_both_places(api, workflow):
    story = Story(api, workflow)
    first = story.outcome()
    story.place = Place(EVENTS, 0, next(OFFSETS))
    await story.write(first, story.outcome())
    shown = (await api.call("GET", f"/events/{story.event_id}")).json()
    assert shown["repeats"] == [{"topic": EVENTS, "partition": 0, "offset": story.place.offset}]


async def test_events_content_is_read_back_from_the_log(api, workflow):
    story = Story(api, workflow)
    envelope = Envelope(
        story.event_id, "nhood.webhook", "/webhooks", story.workspace, story.at, subject="/t"
    )
    event = Event(Payload(b'{"ticket": {"n": 1}}'), user="cust_1", mode="test", method="POST")
    (story.place,) = await api.bus.publish(
        [Record(EVENTS, b"k", codec.encode(event), envelope.headers())]
    )
    await story.write(story.outcome("no_match", "no workflow listens on /t"))
    answer = await api.call("GET", f"/events/{story.event_id}", params={"include": "payload"})
    shown = answer.json()
    assert (shown["outcome"], shown["reason"]) == ("no_match", "no workflow listens on /t")
    assert shown["payload"]["data"] == {"ticket": {"n": 1}}
    assert (shown["payload"]["method"], shown["payload"]["user_id"]) == ("POST", "cust_1")


async def test_content_that_the_log_has_dropped_is_told_so(api, workflow):
    story = Story(api, workflow)
    story.place = Place(EVENTS, 1, 999_999)
    await story.write(story.outcome())
    answer = await api.call("GET", f"/events/{story.event_id}", params={"include": "payload"})
    assert (answer.status_code, answer.json()["code"]) == (404, "payload_gone")


async def test_unknown_event_is_told_with_a_hint(api):
    answer = await api.call("GET", f"/events/{mint('ev')}", params={"wait": 0})
    assert (answer.status_code, answer.json()["code"]) == (404, "event_not_found")
    assert json.loads(answer.text)["detail"].count("?wait=5") == 1


async def test_executions_that_fit_a_filter_are_cancelled_and_counted(api, workflow):
    customer = mint("per")
    stories = [Story(api, workflow, user=customer) for _ in range(3)]
    for story in stories:
        await story.write(story.started())
    ended, other = Story(api, workflow, user=customer), Story(api, workflow, user="somebody")
    await ended.write(*ended.all())
    await other.write(other.started())
    live = Story(api, workflow, user=customer, mode="live")
    await live.write(live.started())
    body = {"user_id": customer, "limit": 2, "reason": "left us"}
    answer = await api.call("POST", "/executions/cancel", body)
    assert (answer.status_code, answer.json()) == (202, {"requested": 2, "remaining": 1})
    asked = await _cancelled(api, [each.id for each in (*stories, ended, other, live)])
    assert asked == {story.id for story in stories[:2]}


async def _cancelled(api, names):
    found = set()
    for name in names:
        partition = partition_of(name.encode(), 3)
        for stored in await api.bus.read(RESULTS, partition, 0, 1_000):
            if stored.key == name.encode():
                found.add(codec.decode_as(CancelRequested, stored.value).execution_id)
    return found


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "filter_missing"),
        ({"reason": "all of them"}, "filter_missing"),
        (
            {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
            "bad_time_range",
        ),
    ],
)
async def test_cancelling_without_saying_what_is_refused(api, body, code):
    answer = await api.call("POST", "/executions/cancel", body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_nothing_to_cancel_is_no_error(api):
    answer = await api.call("POST", "/executions/cancel", {"user_id": "nobody-has-this-name"})
    assert (answer.status_code, answer.json()) == (202, {"requested": 0, "remaining": 0})
