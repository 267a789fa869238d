"""The product as its users have it: started by its own command, spoken to over HTTP."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import psutil
import redis

from nhood.embedded.server import free_port
from nhood.run_state import RunState, read_state

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')


@dataclass
class Product:
    """One stack in a folder of its own, on free ports."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {
            **os.environ,
            "NHOOD_STATE_DIR": str(self.folder),
            "NHOOD_PORT": str(free_port()),
            "NHOOD_SANDBOX_PORT": str(free_port()),
            **self.env,
        }

    def nhood(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nhood", *words]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False,
            cwd=ROOT,
        )  # fmt: skip

    def up(self) -> None:
        done = self.nhood("up", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def down(self) -> None:
        self.nhood("down")

    def logs(self) -> str:
        found = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in found)

    @property
    def state(self) -> RunState:
        return read_state(self.folder)

    @property
    def url(self) -> str:
        return self.state.gateway_url

    @property
    def kafka(self) -> str:
        return self.state.env["KAFKA_BOOTSTRAP_SERVERS"]

    def forget_sign_ups(self) -> None:
        """Let more workspaces be made than one address may make in an hour."""
        with redis.Redis.from_url(self.state.env["REDIS_URL"]) as counters:
            for key in counters.scan_iter("nhood:try:sign-up*"):
                counters.delete(key)

    def kill_everything(self) -> int:
        """End every process with kill -9, the supervisor first; gives how many there were."""
        state = self.state
        parts = [part for part in (state.supervisor, *state.parts) if part and part.alive]
        for part in parts:
            psutil.Process(part.pid).kill()
        wait_for(lambda: not any(part.alive for part in parts), "the killed processes to go")
        return len(parts)


def wait_for(look: Callable[[], Any], what: str, seconds: float = 30, every: float = 0.05) -> Any:
    """Look until there is something; its value."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(every)


@dataclass
class Workspace:
    """A workspace with its keys.

    Attributes:
        key: Of test mode.
        live: Of live mode.
    """

    product: Product
    client: httpx.Client
    id: str = ""
    key: str = ""
    secret: str = ""
    live: str = ""

    @classmethod
    def make(cls, product: Product) -> "Workspace":
        product.forget_sign_ups()
        client = httpx.Client(base_url=product.url, timeout=30)
        body = {"name": "Test Inc.", "email": "dev@example.com", "plan": "professional"}
        made = client.post("/api/v1/workspaces", json=body).raise_for_status().json()
        return cls(
            product,
            client,
            made["workspace_id"],
            made["test_api_key"],
            made["webhook_secret"],
            made["api_key"],
        )

    @property
    def path(self) -> str:
        return f"/api/v1/workspaces/{self.id}"

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def save(self, document: dict[str, Any]) -> str:
        answer = self.call("POST", f"{self.path}/workflows", json=document)
        assert answer.status_code == 201, answer.text
        return answer.json()["workflow_id"]

    def save_example(self, name: str) -> str:
        return self.save(json.loads((EXAMPLES / f"{name}.json").read_text()))

    def connect(self, provider: str, user: str = "u1", **variables: str) -> None:
        """Walk the consent as a browser would."""
        body = {"provider": provider, "user_id": user, "variables": variables}
        offer = self.call("POST", "/api/v1/integrations/auth-url", json=body)
        assert offer.status_code == 200, offer.text
        consent(offer.json()["url"])

    def post(self, path: str, payload: Any, **more: Any) -> dict[str, Any]:
        answer = self.client.post(f"/webhooks/{self.id}{path}", json=payload, **more)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def outcome(self, event_id: str) -> dict[str, Any]:
        def look() -> Any:
            answer = self.call("GET", f"{self.path}/events/{event_id}")
            return (
                answer.json()
                if answer.status_code == 200 and answer.json().get("outcome")
                else None
            )

        return wait_for(look, f"the outcome of {event_id}")

    def finished(self, event_id: str) -> dict[str, Any]:
        """The one execution of an event, ended."""
        (execution,) = self.outcome(event_id)["executions"]
        path = f"{self.path}/executions/{execution['execution_id']}"

        def look() -> Any:
            answer = self.call("GET", path, params={"wait": 10})
            found = answer.json() if answer.status_code == 200 else {"status": "running"}
            return found if found["status"] != "running" else None

        return wait_for(look, "the execution's end", 60)


def consent(url: str) -> None:
    """Allow access on the sandbox's consent page and follow the way back."""
    with httpx.Client(timeout=30) as browser:
        page = browser.get(url)
        assert page.status_code == 200, page.text
        form = {**dict(_HIDDEN.findall(page.text)), "account": "Test", "decision": "allow"}
        back = browser.post(str(page.url), data=form)
        assert back.status_code in (302, 303), back.text
        done = browser.get(urljoin(str(page.url), back.headers["location"]))
        assert done.status_code < 400, done.text


def steps_of(execution: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Step id -> step, from the timeline."""
    return {e["step"]["step_id"]: e["step"] for e in execution["timeline"] if e.get("step")}
