"""Every provider through the whole product: connect, write, read, be throttled, refresh."""

from typing import Any

import pytest

from schemas.provider import ProviderSpec
from tests.contract.cases import VENDORS, providers
from tests.contract.vendor import told_by_customer
from tests.integration.refresh_parts import READS
from tests.integration.sandbox_parts import PASTED_TOKEN
from tests.product import Workspace, steps_of

USER = "u1"


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
