"""Every provider through the whole product: connect, write, read, throttle, refresh, webhook."""

from typing import Any

import pytest

from nhood.sandbox.sending import send
from nhood.sandbox.sheet import read_sheet
from nhood.sandbox.signing import public_key, signable
from schemas.provider import ProviderSpec
from schemas.triggers import triggers_of
from tests.contract.cases import CATALOGUE, VENDORS, providers
from tests.contract.vendor import told_by_customer
from tests.integration.refresh_parts import READS
from tests.integration.sandbox_parts import PASTED_TOKEN
from tests.product import Workspace, steps_of, wait_for

USER = "u1"
SECRET = "5f" * 32


def connect(workspace: Workspace, spec: ProviderSpec) -> dict[str, Any]:
    """Connect an account in the usual way; the connection as the API shows it."""
    told = told_by_customer(spec)
    if spec.auth.kind == "oauth2":
        workspace.connect(spec.slug, USER, **told)
    else:
        known = VENDORS[spec.slug].credentials
        entered = {item.name: known.get(item.name, PASTED_TOKEN) for item in spec.auth.credentials}
        body = {"provider": spec.slug, "user_id": USER, "variables": told, "credentials": entered}
        made = workspace.call("POST", f"{workspace.path}/connections", json=body)
        assert made.status_code == 201, made.text
    found = workspace.call("GET", f"{workspace.path}/connections", params={"provider": spec.slug})
    (connection,) = found.json()["items"]
    return connection


def sandbox(workspace: Workspace, path: str, body: dict[str, Any]) -> None:
    address = f"{workspace.product.state.sandbox_url}/_sandbox/{path}"
    answer = workspace.client.post(address, json=body)
    assert answer.status_code < 300, answer.text


@pytest.mark.parametrize("spec", providers())
def test_vendor_is_written_to_read_throttled_and_refreshed(
    workspace: Workspace, spec: ProviderSpec
) -> None:
    vendor = VENDORS[spec.slug]
    assert vendor.write, "name a `write` and a `read` in tests/contract/vendors"
    assert vendor.read
    connection = connect(workspace, spec)
    assert connection["state"] == "active"
    steps = [
        {"id": name, "provider": spec.slug, "action": action, "retry": {"delay": "10ms"},
         "config": dict(spec.actions[action].example.params)}
        for name, action in (("write", vendor.write), ("read", vendor.read))
    ]  # fmt: skip
    path = f"/{spec.slug}"
    trigger = {"type": "webhook", "path": path, "user": USER}
    workspace.save({"name": spec.name, "trigger": trigger, "steps": steps})

    fault = {"status": 429, "headers": {"retry-after": "0"}}
    script = {"provider": spec.slug, "fault": fault}
    sandbox(workspace, "faults", script)
    execution = workspace.finished(workspace.post(path, {})["event_id"])
    assert execution["status"] == "succeeded", execution
    outcomes = [attempt["outcome"] for attempt in steps_of(execution)["write"]["attempts"]]
    assert outcomes == ["throttled", "succeeded"]

    if spec.slug not in READS:
        return
    sandbox(workspace, "expire", {"provider": spec.slug})
    execution = workspace.finished(workspace.post(path, {"n": 2})["event_id"])
    assert execution["status"] == "succeeded", execution
    shown = workspace.call("GET", f"{workspace.path}/connections/{connection['id']}").json()
    assert shown["state"] == "active"
    assert shown["last_refresh_at"] is not None


def _sends(spec: ProviderSpec) -> bool:
    """Whether its webhooks can be sent here: it has some, and not only the vendor can sign them."""
    triggers = triggers_of(spec)
    if triggers is None or not read_sheet(spec.folder).events:
        return False
    return not triggers.signatures or triggers.signatures[0].algorithm not in ONLY_THE_VENDOR


ONLY_THE_VENDOR = {"oidc", "sns", "rsa-sha256-cert"}


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, id=spec.slug) for spec in CATALOGUE if _sends(spec)]
)
async def test_vendors_own_webhook_starts_a_workflow(
    workspace: Workspace, spec: ProviderSpec
) -> None:
    connection = connect(workspace, spec)
    triggers = triggers_of(spec)
    assert triggers is not None
    scheme = signable(triggers)
    algorithm = scheme.algorithm if scheme else "none"
    body = {"provider": spec.slug, "connection_id": connection["id"]}
    if scheme is not None and scheme.secret != "subscription":
        body["secret"] = public_key(algorithm, SECRET)
    made = workspace.call("POST", f"{workspace.path}/webhook-endpoints", json=body)
    assert made.status_code == 201, made.text
    url, secret = made.json()["url"], made.json()["secret"] or SECRET
    event = next(iter(read_sheet(spec.folder).events))
    trigger = {"type": "provider", "provider": spec.slug, "event": event}
    step = {"provider": "slack", "action": "send_message", "user": "tester",
            "config": {"channel": "#hooks", "text": f"from {spec.name}"}}  # fmt: skip
    workspace.connect("slack", "tester")
    workspace.save({"name": "Hooked", "trigger": trigger, "steps": [step]})

    # What is not signed cannot be wrong, and would start twice.
    for tried in ("6b" * 32, secret) if scheme is not None else (secret,):
        done = await send(spec, event, url, tried)
        assert (done.status >= 400) == (tried != secret), done.answer
    found = wait_for(lambda: executions(workspace), "the execution", 60)
    assert [one["status"] for one in found] == ["succeeded"]


def test_what_a_vendor_does_not_tell_is_looked_for(workspace: Workspace) -> None:
    spec = CATALOGUE.get("salesforce")
    connection = connect(workspace, spec)
    trigger = {"type": "provider", "provider": spec.slug, "event": "record_created"}
    steps = [
        {"id": "again", "provider": spec.slug, "action": "get_lead",
         "config": {"id": "{{event.data.Id}}"}}
    ]  # fmt: skip
    workspace.save({"name": "Leads", "trigger": trigger, "steps": steps})
    lead = {"id": "lead", "provider": spec.slug, "action": "create_lead",
            "config": dict(spec.actions["create_lead"].example.params)}  # fmt: skip
    by_hand = {"type": "webhook", "path": "/lead", "user": USER}
    workspace.save({"name": "Make", "trigger": by_hand, "steps": [lead]})

    body = {"provider": spec.slug, "event": "record_created", "params": {"object": "Lead"}}
    polls = f"{workspace.path}/polls"
    made = workspace.call("POST", polls, json=body | {"connection_id": connection["id"]})
    assert made.status_code == 201, made.text
    poll = f"{polls}/{made.json()['poll_id']}"

    def state(wanted: dict[str, Any]) -> bool:
        shown = workspace.call("GET", poll).json()
        return wanted.items() <= shown.items()

    wait_for(lambda: state({"state": "active", "found": 0}), "the first look", 30)
    workspace.finished(workspace.post("/lead", {})["event_id"])
    assert workspace.call("POST", f"{poll}/look").status_code == 202
    wait_for(lambda: state({"found": 1, "error": None}), "the second look", 30)
    found = wait_for(lambda: executions(workspace)[1:], "the execution", 60)
    assert {one["status"] for one in found} == {"succeeded"}


def executions(workspace: Workspace) -> list[dict[str, Any]]:
    """Those that have ended."""
    found = workspace.call("GET", f"{workspace.path}/executions").json()["items"]
    return [one for one in found if one["status"] != "running"]
