"""`nhood demo`: the whole way of an event, shown on the real parts while it happens."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from rich.console import Console

from nhood.run_state import RunState, read_state
from nhood.supervisor import bring_down, detach
from schemas.errors import DependencyDown, StackError
from schemas.settings import Settings
from wire.clock import mint

CUSTOMER = "customer_42"
FINISH_S = 30.0  # for an execution of two steps; it takes some 50 ms
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')

WORKFLOW: dict[str, Any] = {
    "name": "Welcome New Customer",
    "trigger": {"type": "webhook", "path": "/new-customer"},
    "steps": [
        {
            "provider": "slack",
            "action": "send_message",
            "config": {"channel": "#sales", "text": "New customer: {{customer.name}}"},
        },
        {
            "provider": "salesforce",
            "action": "create_lead",
            "config": {
                "first_name": "{{customer.first_name}}",
                "last_name": "{{customer.last_name}}",
                "company": "{{customer.company}}",
                "email": "{{customer.email}}",
            },
        },
    ],
}
PAYLOAD = {
    "customer": {
        "name": "Ada Lovelace",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "company": "Analytical Engines",
        "email": "ada@example.com",
    }
}


@dataclass(frozen=True, slots=True)
class _Api:
    """The control API with one key."""

    client: httpx.Client
    url: str
    key: str = ""

    def call(self, method: str, path: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        """Call and give the answer's JSON.

        Raises:
            DependencyDown: Any answer but 2xx; quotes it.
        """
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        answer = self.client.request(method, f"{self.url}{path}", headers=headers, **more)
        if not answer.is_success:
            raise DependencyDown(
                f"{method} {path} answered {answer.status_code}: {answer.text[:400]}",
                code="demo_failed",
            )
        body: dict[str, Any] = answer.json()
        return body


def run(settings: Settings, env: Mapping[str, str], *, once: bool) -> int:
    """Start the stack where it is not up, run the main job, tell what happens.

    Returns:
        The exit code: 0 only where the execution succeeded and the vendors have what they should.
    """
    console = Console(highlight=False, soft_wrap=True)
    folder = Path(settings.state_dir).absolute()
    state = read_state(folder)
    began_it = not state.is_up
    try:
        if not (state.is_up and state.ready):
            console.print("[bold]1. Starting Kafka, PostgreSQL, Valkey and the stages[/bold]")
            state = detach(settings, env, lambda sentence: console.print(f"   {sentence}"))
        else:
            console.print("[bold]1. The stack is up already[/bold]")
        with httpx.Client(timeout=30) as client:
            return _show(console, client, state)
    finally:
        if once:
            bring_down(folder, lambda sentence: console.print(f"   {sentence}"))
            console.print("Everything is stopped." if began_it else "The stack is stopped.")


def _show(console: Console, client: httpx.Client, state: RunState) -> int:
    url = state.gateway_url
    open_api = _Api(client, url)
    console.print("\n[bold]2. A workspace[/bold]   POST /api/v1/workspaces")
    made = open_api.call(
        "POST",
        "/api/v1/workspaces",
        json={"name": "Demo Inc.", "email": "dev@example.com", "plan": "free"},
    )
    workspace = made["workspace_id"]
    api = _Api(client, url, made["test_api_key"])
    console.print(f"   {workspace}, with a test key: its steps go to the sandbox")

    console.print("\n[bold]3. A workflow[/bold]   POST /api/v1/workspaces/{ws}/workflows")
    saved = api.call("POST", f"/api/v1/workspaces/{workspace}/workflows", json=WORKFLOW)
    workflow_id = saved.get("workflow_id") or saved["id"]
    console.print(f"   {workflow_id} “{WORKFLOW['name']}”, version {saved['version']}: webhook")
    console.print("   /new-customer → slack.send_message → salesforce.create_lead")

    console.print(
        f"\n[bold]4. {CUSTOMER} connects two accounts[/bold]   real OAuth, sandbox vendors"
    )
    for provider in ("slack", "salesforce"):
        _connect(console, api, provider)

    console.print("\n[bold]5. A webhook comes in[/bold]   POST /webhooks/{ws}/new-customer")
    began = time.perf_counter()
    receipt = open_api.call(
        "POST",
        f"/webhooks/{workspace}/new-customer",
        json=PAYLOAD,
        params={"user_id": CUSTOMER},
    )
    took = (time.perf_counter() - began) * 1000
    console.print(
        f"   202 after Kafka had it ({took:.0f} ms): {receipt['event_id']} in "
        f"{receipt['topic']}[{receipt['partition']}] at offset {receipt['offset']}"
    )
    execution = _finished(api, workspace, receipt["event_id"])
    _tell(console, execution)
    return _close(console, api, state, workspace, execution)


def _connect(console: Console, api: _Api, provider: str) -> None:
    """Walk the consent as a browser would: page, form, callback."""
    offer = api.call(
        "POST", "/api/v1/integrations/auth-url", json={"provider": provider, "user_id": CUSTOMER}
    )
    page = api.client.get(offer["url"])
    if not page.is_success:
        raise StackError(f"The consent page answered {page.status_code}.", code="demo_failed")
    form = dict(_HIDDEN.findall(page.text))
    consent = api.client.post(
        str(page.url), data={**form, "account": "Demo Inc.", "decision": "allow"}
    )
    callback = urljoin(str(page.url), consent.headers.get("location", ""))
    done = api.client.get(callback)
    if done.status_code >= httpx.codes.BAD_REQUEST or not consent.headers.get("location"):
        raise StackError(
            f"Connecting {provider} ended with {consent.status_code}/{done.status_code}.",
            code="demo_failed",
        )
    console.print(f"   {provider}: consent page → code → token exchange (PKCE) → vault: connected")


def _finished(api: _Api, workspace: str, event_id: str) -> dict[str, Any]:
    """Wait for the event's execution and its end."""
    until = time.monotonic() + FINISH_S
    while time.monotonic() < until:
        answer = api.client.get(
            f"{api.url}/api/v1/workspaces/{workspace}/events/{event_id}",
            headers={"authorization": f"Bearer {api.key}"},
        )
        if answer.is_success and answer.json().get("executions"):
            execution_id = answer.json()["executions"][0]
            execution_id = (
                execution_id if isinstance(execution_id, str) else execution_id["execution_id"]
            )
            path = f"/api/v1/workspaces/{workspace}/executions/{execution_id}"
            found = api.call("GET", path, params={"wait": 20})
            if found["status"] != "running":
                return found
        time.sleep(0.05)
    raise StackError(
        f"The execution did not end within {FINISH_S:.0f} s; see `nhood status`.",
        code="demo_failed",
    )


def _tell(console: Console, execution: Mapping[str, Any]) -> None:
    console.print(
        f"\n[bold]6. The execution[/bold]   {execution['execution_id']}: {execution['status']}"
    )
    for entry in execution["timeline"]:
        _tell_entry(console, entry)


def _tell_entry(console: Console, entry: Mapping[str, Any]) -> None:
    step = entry.get("step") or {}
    name = step.get("step_id") or entry["kind"].replace("_", " ")
    place = _place(step.get("command_place") or entry.get("place"))
    took = f", {step['duration_ms']:.0f} ms" if step.get("duration_ms") is not None else ""
    ended = step.get("status") or entry.get("outcome") or entry.get("status") or ""
    console.print(f"   {name:24} {ended:10} {place}{took}", markup=False)
    if step.get("request") is not None:
        request, response = step["request"], step.get("response") or {}
        sent = f"{request.get('method')} {request.get('url')} {_short(request.get('body'), 240)}"
        console.print(f"      the vendor received  {sent}", markup=False)
        told = f"{response.get('status')} {_short(response.get('body'), 240)}"
        console.print(f"      and answered         {told}", markup=False)


def _place(place: Mapping[str, Any] | None) -> str:
    return f"{place['topic']}[{place['partition']}] @{place['offset']}" if place else ""


def _short(value: Any, longest: int) -> str:  # noqa: ANN401 - any JSON value
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _close(
    console: Console,
    api: _Api,
    state: RunState,
    workspace: str,
    execution: Mapping[str, Any],
) -> int:
    ended = execution["status"] == "succeeded"
    if not ended:
        console.print(f"[bold red]The execution {execution['status']}.[/bold red]")
    path = f"{state.gateway_url}/api/v1/workspaces/{workspace}"
    console.print(f"\nPortal: {state.gateway_url}/   API reference: {state.gateway_url}/docs")
    console.print(f"Log in with the test key {api.key}")
    console.print("\nThree commands to try next:")
    delivery = mint("ev")
    console.print(
        f"  curl -X POST '{state.gateway_url}/webhooks/{workspace}/new-customer"
        f"?user_id={CUSTOMER}' -H 'webhook-id: {delivery}' -H 'content-type: application/json' "
        f"-d '{json.dumps(PAYLOAD)}'",
        markup=False,
    )
    console.print(f"  curl -H 'authorization: Bearer {api.key}' '{path}/executions'", markup=False)
    console.print("  .venv/bin/nhood status")
    return 0 if ended else 1
