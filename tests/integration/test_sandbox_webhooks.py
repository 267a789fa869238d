"""The sandbox's own API for sending webhooks: to whom it may, and what it says."""

import pytest

from tests.integration.sandbox_parts import running_sandbox


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://10.0.0.7:9/hooks/x"])
async def test_webhooks_leave_private_networks_alone(url: str) -> None:
    body = {"provider": "github", "event": "issues", "url": url, "secret": "s"}
    async with running_sandbox() as sandbox:
        answer = await sandbox.client.post(f"{sandbox.url}/_sandbox/webhooks", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "unreachable"


async def test_unknown_event_names_those_that_there_are() -> None:
    body = {"provider": "github", "event": "isues", "url": "http://127.0.0.1:9", "secret": "s"}
    async with running_sandbox() as sandbox:
        answer = await sandbox.client.post(f"{sandbox.url}/_sandbox/webhooks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_event")
    assert "issues" in answer.text
