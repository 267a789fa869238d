"""`on_unknown: check`: what may have been done is looked up before it is done again."""

import httpx
import orjson
import pytest

from executors.core.check import call_checked
from executors.core.outcome import Succeeded, Unknown
from executors.core.request import Response
from executors.runtime.driver import Driver
from executors.runtime.ledger import Begun
from executors.runtime.worker import Job, Ports, Worker
from schemas import codec
from schemas.events import Payload, Place, StepFinished
from schemas.provider import ActionSpec, ProviderSpec, load_catalogue
from schemas.settings import Settings
from schemas.topics import RESULTS
from tests.contract.cases import variables_of
from tests.unit.executors.test_driver import FakeTokens, ScriptedCalls, command
from wire.bus import MemoryBus, Stored
from wire.consumer import Taken

CATALOGUE = load_catalogue()
CHECKED = [
    pytest.param(spec, action, id=f"{spec.slug}.{action.id}")
    for spec in CATALOGUE
    for action in spec.actions.values()
    if action.check is not None
]
GITHUB = CATALOGUE.get("github")
CREATE = GITHUB.action("create_org_repo")
PARAMS = {"org": "acme", "name": "shop"}
REPO = {"id": 1, "name": "shop", "full_name": "acme/shop"}
ZENDESK = CATALOGUE.get("zendesk")
USER = {"name": "Ada", "external_id": "c7"}


def answer(status: int, body: object) -> Response:
    return Response(status, {}, orjson.dumps(body))


def looked_up(spec: ProviderSpec, action: ActionSpec, params: dict, found: Response) -> object:
    """Answer the look-up; what follows: an outcome, or the request of the call itself."""
    steps = call_checked(spec, action, params, variables_of(spec), "key")
    request = next(steps)
    assert request.read_only
    try:
        return steps.send(found)
    except StopIteration as end:
        return end.value


def test_some_providers_can_be_asked():
    assert len({param.values[0].slug for param in CHECKED}) >= 3


@pytest.mark.parametrize(("spec", "action"), CHECKED)
def test_look_up_is_a_call_that_the_vendor_takes(spec, action):
    params = {**action.example.params, **({"external_id": "c7"} if spec.slug == "zendesk" else {})}
    roots = {"params": action.prepare(params), "connection": variables_of(spec), "effect_key": "k"}
    look = spec.action(action.check.action)
    assert look.check_params(action.check.params.render(roots)) == []
    request = next(call_checked(spec, action, params, variables_of(spec), "k"))
    assert look.request is not None
    assert (request.method, request.read_only) == (look.request.method, True)


def test_effect_that_is_there_is_the_steps_success_and_nothing_is_sent():
    outcome = looked_up(GITHUB, CREATE, PARAMS, answer(200, REPO))
    assert isinstance(outcome, Succeeded)
    assert outcome.vendor_id == "acme/shop"


def test_found_effect_looks_as_if_the_action_itself_had_answered():
    action = ZENDESK.action("create_user")
    found = answer(200, {"users": [{"id": 9, "external_id": "c7", "name": "Ada"}]})
    outcome = looked_up(ZENDESK, action, USER, found)
    assert isinstance(outcome, Succeeded)
    assert (outcome.vendor_id, outcome.output["user"]["name"]) == ("9", "Ada")


def test_effect_that_is_not_there_is_carried_out():
    request = looked_up(GITHUB, CREATE, PARAMS, answer(404, {"message": "Not Found"}))
    assert (request.method, request.url) == ("POST", "https://api.github.com/orgs/acme/repos")


# What the vendor answers to the look-up, and what that says: the effect is there, it is not, or
# nobody can say.
TOLD = [
    ("bitbucket", "create_repository", 200, {"uuid": "{u}"}, "found"),
    ("bitbucket", "create_repository", 404, {}, "absent"),
    ("dropbox", "create_folder", 200, {".tag": "folder", "id": "id:1"}, "found"),
    ("dropbox", "create_folder", 200, {".tag": "file", "id": "id:1"}, "unknown"),
    ("dropbox", "create_folder", 409, {"error_summary": "path/not_found/.."}, "absent"),
    ("dropbox", "delete_item", 409, {"error_summary": "path/not_found/.."}, "found"),
    ("dropbox", "delete_item", 409, {"error_summary": "path/malformed_path/.."}, "unknown"),
    ("dropbox", "delete_item", 200, {".tag": "file", "id": "id:1"}, "absent"),
    ("paypal", "send_invoice", 200, {"status": "SENT"}, "found"),
    ("paypal", "send_invoice", 200, {"status": "DRAFT"}, "absent"),
    ("paypal", "cancel_invoice", 200, {"status": "CANCELLED"}, "found"),
    ("paypal", "cancel_invoice", 200, {"status": "SENT"}, "absent"),
    ("intercom", "close_conversation", 200, {"id": "503", "state": "closed"}, "found"),
    ("intercom", "close_conversation", 200, {"id": "503", "state": "snoozed"}, "absent"),
    ("gmail", "create_label", 200, {"labels": [{"name": "Clients/Acme"}]}, "found"),
    ("gmail", "create_label", 200, {"labels": [{"name": "INBOX"}]}, "absent"),
    ("excel_online", "add_worksheet", 200, {"id": "{1}"}, "found"),
    ("excel_online", "add_worksheet", 404, {}, "absent"),
    ("postmark", "create_template", 200, {"TemplateId": 1, "Alias": "onboarding"}, "found"),
    ("postmark", "create_template", 422, {"ErrorCode": 1101}, "absent"),
    ("postmark", "create_template", 422, {"ErrorCode": 300}, "unknown"),
    ("mattermost", "create_channel", 200, {"id": "c"}, "found"),
    ("mattermost", "create_channel", 404, {}, "absent"),
    (
        "google_drive", "create_permission", 200,
        {"permissions": [{"emailAddress": "ben@example.com", "role": "reader"}]}, "found",
    ),
    (
        "google_drive", "create_permission", 200,
        {"permissions": [{"emailAddress": "ben@example.com", "role": "writer"}]}, "absent",
    ),
    (
        "google_drive", "create_permission", 200,
        {"permissions": [{"type": "anyone", "role": "reader"}], "nextPageToken": "2"}, "unknown",
    ),
    (
        "airtable", "create_field", 200,
        {"tables": [{"id": "tbltp8DGLhqbUmjK1", "fields": [{"name": "Visited"}]}]}, "found",
    ),
    (
        "airtable", "create_field", 200,
        {"tables": [{"id": "tbltp8DGLhqbUmjK1", "fields": [{"name": "Name"}]}]}, "absent",
    ),
    ("airtable", "create_field", 200, {"tables": []}, "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("slug", "name", "status", "body", "says"), TOLD)
def test_what_a_look_up_says(slug, name, status, body, says):
    spec = CATALOGUE.get(slug)
    action = spec.action(name)
    found = looked_up(spec, action, action.example.params, answer(status, body))
    read = {Succeeded: "found", Unknown: "unknown"}.get(type(found), "absent")
    assert read == says


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_look_up_without_a_clear_answer_leaves_it_unknown_and_sends_nothing(status):
    outcome = looked_up(GITHUB, CREATE, PARAMS, answer(status, {"message": "?"}))
    assert isinstance(outcome, Unknown)
    assert outcome.code == "not_checked"


@pytest.mark.parametrize("users", [[], [{"id": 1, "external_id": None}]])
def test_what_cannot_be_told_apart_stays_unknown(users):
    action = ZENDESK.action("create_user")
    outcome = looked_up(ZENDESK, action, {"name": "Ada"}, answer(200, {"users": users}))
    assert isinstance(outcome, Unknown)


class Vendor:
    """GitHub: breaks off the first call, after it was done or before."""

    def __init__(self, *, done: bool, breaks: int = 1) -> None:
        self.done, self.breaks = done, breaks
        self.repos = 0
        self.log: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.log.append(request.method)
        if request.method == "GET":
            return httpx.Response(200, json=REPO) if self.repos else httpx.Response(404, json={})
        if len([method for method in self.log if method == "POST"]) <= self.breaks:
            self.repos += self.done
            raise httpx.ReadError("connection reset")
        self.repos += 1
        return httpx.Response(201, json=REPO)


async def run(vendor: Vendor, on_unknown: str, *, begun: bool = False):
    step = command(
        "create_org_repo", provider="github", params=Payload(orjson.dumps(PARAMS)),
        on_unknown=on_unknown,
    )  # fmt: skip
    driver = Driver(ScriptedCalls(vendor), FakeTokens(), Settings())
    return await driver.run(step, GITHUB, CREATE, begun=begun)


@pytest.mark.parametrize(
    ("done", "log"), [(True, ["POST", "GET"]), (False, ["POST", "GET", "POST"])]
)
async def test_call_without_an_answer_is_looked_up_and_done_once(done, log):
    vendor = Vendor(done=done)
    carried = await run(vendor, "check")
    assert carried.outcome.kind == "succeeded"
    assert (vendor.log, vendor.repos) == (log, 1)
    assert [attempt.outcome for attempt in carried.attempts] == ["unknown", "succeeded"]


async def test_call_that_somebody_began_and_did_not_end_is_looked_up_first():
    vendor = Vendor(done=True, breaks=0)
    vendor.repos = 1
    carried = await run(vendor, "check", begun=True)
    assert (carried.outcome.kind, vendor.log, vendor.repos) == ("succeeded", ["GET"], 1)


async def test_without_check_the_same_break_repeats_or_gives_up():
    again, left = Vendor(done=True), Vendor(done=True)
    assert (await run(again, "retry")).outcome.kind == "succeeded"
    assert again.repos == 2
    assert (await run(left, "fail")).outcome.kind == "unknown"
    assert left.repos == 1


class BegunLedger:
    """Knows that the effect was begun, and notes what came of it."""

    def __init__(self) -> None:
        self.finished: list[str] = []

    async def begin(self, workspace_id: str, effect_key: str, *, again: bool) -> Begun:
        return Begun()

    async def finish(self, effect_key: str, result: bytes) -> None:
        self.finished.append(codec.decode_as(StepFinished, result).outcome)


class Consumer:
    def begin(self, taken: Taken) -> bool:
        return True

    def done(self, taken: Taken, *, handled: bool) -> None:
        assert handled


@pytest.mark.parametrize(
    ("on_unknown", "outcome", "log"),
    [
        ("check", "succeeded", ["GET"]),
        ("fail", "unknown", []),
        ("retry", "succeeded", ["POST"]),
    ],
)
async def test_effect_begun_by_a_killed_executor_follows_on_unknown(on_unknown, outcome, log):
    vendor = Vendor(done=True, breaks=0)
    vendor.repos = 1
    ledger, bus = BegunLedger(), MemoryBus({RESULTS: 1})
    driver = Driver(ScriptedCalls(vendor), FakeTokens(), Settings())
    worker = Worker(Ports(CATALOGUE, ledger, driver, bus, None), Consumer)
    step = command(
        "create_org_repo", provider="github", params=Payload(orjson.dumps(PARAMS)),
        on_unknown=on_unknown,
    )  # fmt: skip
    place = Place("nhood.steps.github.v1", 0, 0)
    await worker.handle(Job.read(Taken(Stored(place, b"k", codec.encode(step)), None, 0.0)))
    assert (ledger.finished, vendor.log) == ([outcome], log)
    (stored,) = await bus.read(RESULTS, 0, 0, 10)
    assert codec.decode_as(StepFinished, stored.value).outcome == outcome
