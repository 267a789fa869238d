"""Workflows over HTTP: checked whole, versioned, on the log before the answer."""

import asyncio
import json
from pathlib import Path

import pytest

from schemas import codec
from schemas.errors import DependencyDown
from schemas.events import Event, WorkflowVersion
from schemas.ids import execution_id
from schemas.incoming import read_event
from schemas.topics import DEFINITIONS, EVENTS

EXAMPLES = Path(__file__).parents[3] / "examples"
WELCOME = json.loads((EXAMPLES / "welcome-new-customer.json").read_text())
TICKET = json.loads((EXAMPLES / "process-support-ticket.json").read_text())


class Broken:
    """A log that does not answer."""

    def __init__(self, bus, *, lose_answers=False):
        self._bus = bus
        self._lose_answers = lose_answers

    async def publish(self, records):
        if self._lose_answers:
            await self._bus.publish(records)
        return [DependencyDown("Kafka is away.", code="kafka_down") for _ in records]


async def _log(api):
    """All definitions on the log, as (key, record)."""
    stored = await api.bus.read(DEFINITIONS, 0, 0, 1000)
    return [(item.key.decode(), codec.decode_as(WorkflowVersion, item.value)) for item in stored]


async def _save(api, document=WELCOME):
    answer = await api.call("POST", "/workflows", document)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.parametrize("document", [WELCOME, TICKET], ids=["welcome", "ticket"])
async def test_saved_workflow_is_shown_as_it_was_written(api, document):
    saved = await _save(api, document)
    assert saved["definition"] == document
    assert (saved["version"], saved["status"], saved["mode"]) == (1, "active", "test")
    path = document["trigger"]["path"]
    address = f"http://127.0.0.1:8080/webhooks/{api.workspace['workspace_id']}{path}"
    assert saved["webhook_address"] == address
    shown = (await api.call("GET", f"/workflows/{saved['workflow_id']}")).json()
    assert shown == saved


async def test_saved_workflow_is_on_the_log_under_its_version_and_as_the_current_one(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    told = await _log(api)
    assert [key for key, _ in told] == [f"{name}@1", name]
    for _, version in told:
        assert version.status == "active"
        assert json.loads(version.definition) == WELCOME
        assert (version.version, version.mode, version.name) == (1, "test", WELCOME["name"])


async def test_every_error_of_a_workflow_comes_at_once_with_its_place(api):
    broken = json.loads(json.dumps(WELCOME))
    broken["steps"][0]["config"].pop("channel")
    broken["steps"][0]["config"]["txt"] = "x"
    broken["steps"][1]["provider"] = "salesfroce"
    broken["trigger"] = {"type": "webhok"}
    answer = await api.call("POST", "/workflows", broken)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_workflow"
    places = [problem["place"] for problem in answer.json()["problems"]]
    assert "trigger.type" in places
    assert "steps[1].provider" in places
    assert any(place.startswith("steps[0].config") for place in places)
    assert await _log(api) == []


async def test_new_version_replaces_the_current_one_and_the_old_stays(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    second = {**WELCOME, "name": "Welcome, better"}
    answer = await api.call("PUT", f"/workflows/{name}", second)
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert [key for key, _ in await _log(api)] == [f"{name}@1", name, f"{name}@2", name]
    listed = (await api.call("GET", f"/workflows/{name}/versions")).json()["items"]
    assert [(item["version"], item["name"]) for item in listed] == [
        (2, "Welcome, better"),
        (1, WELCOME["name"]),
    ]
    first = (await api.call("GET", f"/workflows/{name}/versions/1")).json()
    assert (first["definition"], first["state"]) == (WELCOME, "published")


async def test_saving_the_same_again_makes_no_version(api):
    saved = await _save(api)
    answer = await api.call("PUT", f"/workflows/{saved['workflow_id']}", WELCOME)
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert len(await _log(api)) == 2


async def test_saves_at_the_same_time_get_numbers_of_their_own_and_the_log_agrees(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    documents = [{**WELCOME, "name": f"Welcome {n}"} for n in range(6)]
    answers = await asyncio.gather(
        *(api.call("PUT", f"/workflows/{name}", document) for document in documents)
    )
    assert sorted(answer.json()["version"] for answer in answers) == [2, 3, 4, 5, 6, 7]
    current = (await api.call("GET", f"/workflows/{name}")).json()
    last = [version for key, version in await _log(api) if key == name][-1]
    assert (last.version, last.name) == (current["version"], current["name"]) == (7, last.name)


async def test_deleted_workflow_is_gone_here_and_on_the_log(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    assert (await api.call("DELETE", f"/workflows/{name}")).status_code == 204
    key, last = (await _log(api))[-1]
    assert (key, last.status) == (name, "deleted")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", "/versions/1")):
        assert (await api.call(method, f"/workflows/{name}{path}")).status_code == 404
    assert (await api.call("GET", "/workflows")).json()["items"] == []


async def test_failed_publish_leaves_the_old_version_in_force_and_burns_the_number(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    definitions = api.ports.definitions
    definitions._publisher = Broken(api.bus, lose_answers=True)  # the log has it, nobody knows
    answer = await api.call("PUT", f"/workflows/{name}", {**WELCOME, "name": "Lost"})
    assert (answer.status_code, answer.json()["code"]) == (503, "kafka_down")
    assert "retry-after" in answer.headers
    assert (await api.call("GET", f"/workflows/{name}")).json()["version"] == 1

    definitions._publisher = api.bus
    assert await definitions.heal() == 1
    assert await definitions.heal() == 0
    current = [version for key, version in await _log(api) if key == name][-1]
    assert (current.version, current.name) == (1, WELCOME["name"])
    answer = await api.call("PUT", f"/workflows/{name}", {**WELCOME, "name": "Kept"})
    assert answer.json()["version"] == 3
    by_number = {key: version.name for key, version in await _log(api) if "@" in key}
    assert by_number == {f"{name}@1": WELCOME["name"], f"{name}@2": "Lost", f"{name}@3": "Kept"}
    listed = (await api.call("GET", f"/workflows/{name}/versions")).json()["items"]
    assert [item["version"] for item in listed] == [3, 1]


async def test_workflow_whose_first_publish_failed_never_comes_into_force(api):
    definitions = api.ports.definitions
    definitions._publisher = Broken(api.bus, lose_answers=True)
    assert (await api.call("POST", "/workflows", WELCOME)).status_code == 503
    assert (await api.call("GET", "/workflows")).json()["items"] == []
    definitions._publisher = api.bus
    assert await definitions.heal() == 1
    key, last = (await _log(api))[-1]
    assert last.status == "deleted"
    assert "@" not in key


async def test_delete_that_was_interrupted_is_finished(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    definitions = api.ports.definitions
    definitions._publisher = Broken(api.bus)
    assert (await api.call("DELETE", f"/workflows/{name}")).status_code == 503
    definitions._publisher = api.bus
    assert await definitions.heal() == 1
    key, last = (await _log(api))[-1]
    assert (key, last.status) == (name, "deleted")
    assert (await api.call("GET", f"/workflows/{name}")).status_code == 404


async def test_republishing_writes_every_version_again(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    await api.call("PUT", f"/workflows/{name}", {**WELCOME, "name": "Second"})
    gone = await _save(api, TICKET)
    await api.call("DELETE", f"/workflows/{gone['workflow_id']}")
    before = len(await _log(api))
    assert await api.ports.definitions.republish() >= 5
    again = [(key, v.version, v.status) for key, v in (await _log(api))[before:]]
    assert (f"{name}@1", 1, "active") in again
    assert (f"{name}@2", 2, "active") in again
    assert (name, 2, "active") in again
    assert (gone["workflow_id"], 1, "deleted") in again


async def test_workflows_of_the_other_mode_and_workspace_are_not_seen(api, other):
    saved = await _save(api)
    path = f"/workflows/{saved['workflow_id']}"
    live = {"Authorization": f"Bearer {api.workspace['api_key']}"}
    for method in ("GET", "DELETE"):
        assert (await api.call(method, path, headers=live)).status_code == 404
        assert (await other.call(method, path)).status_code == 404
    assert (await api.call("PUT", path, WELCOME, headers=live)).status_code == 404
    assert (await api.call("GET", "/workflows", headers=live)).json()["items"] == []
    assert (await api.call("POST", path + "/execute", {}, headers=live)).status_code == 404


async def test_plan_bounds_the_number_of_workflows(api):
    await api.call("PATCH", "", {"settings": {"max_workflows": 1}})
    await _save(api)
    answer = await api.call("POST", "/workflows", TICKET)
    assert (answer.status_code, answer.json()["code"]) == (403, "workflow_limit_reached")
    live = {"Authorization": f"Bearer {api.workspace['api_key']}"}
    assert (await api.call("POST", "/workflows", TICKET, headers=live)).status_code == 201


async def test_saves_at_the_same_time_keep_the_plans_bound(api):
    await api.call("PATCH", "", {"settings": {"max_workflows": 2}})
    answers = await asyncio.gather(*(api.call("POST", "/workflows", WELCOME) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 403, 403, 403, 403]


async def test_list_pages_newest_first_without_gaps(api):
    names = [(await _save(api))["workflow_id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await api.call("GET", "/workflows", params=query)).json()
        seen += [item["workflow_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == names[::-1]


async def test_execute_puts_an_event_on_the_log_and_names_the_execution(api):
    saved = await _save(api)
    name = saved["workflow_id"]
    body = {"input": {"customer": {"name": "Ada"}}, "user_id": "cust_1"}
    answer = await api.call("POST", f"/workflows/{name}/execute", body)
    assert answer.status_code == 202
    receipt = answer.json()
    assert receipt["execution_id"] == execution_id(receipt["event_id"], name, 1, 0)
    (stored,) = await api.bus.read(EVENTS, receipt["partition"], receipt["offset"], 1)
    envelope, event = read_event(stored.value, stored.headers, stored.place, 0)
    assert (envelope.type, envelope.subject, envelope.id) == (
        "nhood.execute",
        name,
        receipt["event_id"],
    )
    assert isinstance(event, Event)
    assert (json.loads(event.data.data), event.user, event.mode) == (
        body["input"],
        "cust_1",
        "test",
    )


async def test_execute_refuses_unknown_fields_with_a_suggestion(api):
    saved = await _save(api)
    answer = await api.call("POST", f"/workflows/{saved['workflow_id']}/execute", {"imput": {}})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["mend"] == "Did you mean 'input'?"


async def test_number_too_large_for_the_log_is_refused(api):
    saved = await _save(api)
    answer = await api.call("POST", f"/workflows/{saved['workflow_id']}/execute", {"input": 2**70})
    assert (answer.status_code, answer.json()["problems"][0]["code"]) == (422, "number_too_large")
