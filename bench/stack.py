"""The product, started by its own command in a folder of its own, spoken to over HTTP.

`nhood up` gets free ports and `NHOOD_SANDBOX_URL`, the double's address: test keys lead there. A
sandbox of its own stands behind the double and answers what the double passes on, OAuth above all.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import psutil
from confluent_kafka import Consumer, TopicPartition

from bench.processes import Child, free_port
from bench.watch import tree
from nhood.run_state import RunState, read_state
from schemas.codec import decode
from schemas.events import ExecutionFinished
from schemas.topics import EXECUTIONS

UP_S = 180  # the first start downloads Kafka
FINISH_S = 120
USER = "customer_1"
PATH = "/new-customer"
PAGE = 100
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')

WORKFLOW: dict[str, Any] = {
    "name": "Welcome New Customer",
    "trigger": {"type": "webhook", "path": PATH},
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


class Stack:
    """One run of the product.

    Attributes:
        workspace: Where the workflow is.
    """

    def __init__(self, double_url: str, *, steady: bool = False) -> None:
        self._steady = steady
        self._folder = Path(tempfile.mkdtemp(prefix="nhood-bench-"))
        self._folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
        self._double = double_url
        self._children: list[Child] = []
        self._client = httpx.Client(timeout=30)
        self.workspace = ""
        self.sandbox_port = free_port()

    @property
    def state(self) -> RunState:
        """What runs."""
        return read_state(self._folder)

    @property
    def gateway_port(self) -> int:
        """Where webhooks go."""
        return next(part.port for part in self.state.parts if part.name == "gateway")

    @property
    def pids(self) -> list[int]:
        """Roots of the process trees that make up the product."""
        state = self.state
        supervisor = [state.supervisor.pid] if state.supervisor else []
        return [*supervisor, *(part.pid for part in state.parts), self._children[0].pid]

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: It does not come up.
        """
        env = {
            **os.environ,
            "NHOOD_STATE_DIR": str(self._folder),
            "NHOOD_PORT": str(free_port()),
            "NHOOD_SANDBOX_PORT": str(self.sandbox_port),
            "NHOOD_SANDBOX_URL": self._double,
            "NHOOD_OPS_PORT": str(free_port()),
            "NHOOD_KAFKA_STEADY": str(self._steady).lower(),
            # What is measured is the pipeline, by one workspace alone.
            "NHOOD_INGEST_RATE": "1000000",
            "NHOOD_INGEST_BURST": "1000000",
        }
        log = self._folder / "sandbox.log"
        self._children.append(Child([sys.executable, "-m", "nhood", "serve", "sandbox"], env, log))
        self._client.post(
            f"{self._double}/__sandbox", json={"url": f"http://127.0.0.1:{self.sandbox_port}"}
        )
        env["NHOOD_SANDBOX_PORT"] = str(free_port())  # none is started there
        env.pop("NHOOD_OPS_PORT")
        up = Child([sys.executable, "-m", "nhood", "up"], env, self._folder / "up.log")
        self._children.append(up)
        until = time.monotonic() + UP_S
        while not self.state.ready:
            if not up.alive or time.monotonic() > until:
                raise RuntimeError(f"nhood up did not come up: {up.log[-2_000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, the way `nhood up` is ended by Ctrl-C."""
        self._client.close()
        for child in reversed(self._children):
            child.stop(90)
        subprocess.run(["rm", "-rf", str(self._folder)], check=False)

    def prepare(self) -> None:
        """Make a workspace, save the workflow, connect the customer's two accounts."""
        body = {"name": "Bench", "email": "bench@example.com", "plan": "enterprise"}
        made = self._call("POST", "/api/v1/workspaces", json=body)
        self.workspace = made["workspace_id"]
        self._client.headers["authorization"] = f"Bearer {made['test_api_key']}"
        self._call("POST", f"/api/v1/workspaces/{self.workspace}/workflows", json=WORKFLOW)
        for provider in ("slack", "salesforce"):
            self._connect(provider)

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        answer = self._client.request(method, f"{self.state.gateway_url}{path}", **more)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _connect(self, provider: str) -> None:
        """Walk the consent as a browser would: page, form, callback."""
        offer = self._call(
            "POST", "/api/v1/integrations/auth-url", json={"provider": provider, "user_id": USER}
        )
        page = self._client.get(offer["url"]).raise_for_status()
        form = {**dict(_HIDDEN.findall(page.text)), "account": "Bench", "decision": "allow"}
        consent = self._client.post(str(page.url), data=form)
        done = self._client.get(urljoin(str(page.url), consent.headers["location"]))
        if done.status_code >= httpx.codes.BAD_REQUEST:
            raise RuntimeError(f"{provider} was not connected: {done.text[:500]}")

    def processes(self) -> list[psutil.Process]:
        """List every process of the product."""
        return tree(self.pids)

    def wait_for_read_side(self, execution_ids: Iterable[str]) -> bool:
        """Wait until the API shows these executions as ended; say whether it did."""
        until = time.monotonic() + FINISH_S
        for name in execution_ids:
            path = f"/api/v1/workspaces/{self.workspace}/executions/{name}"
            url = f"{self.state.gateway_url}{path}"
            while True:
                answer = self._client.get(url)
                if answer.is_success and answer.json()["status"] != "running":
                    break
                if time.monotonic() > until:
                    return False
                time.sleep(0.05)
        return True

    def statuses(self) -> Counter[str]:
        """Count all executions by status through the API."""
        found: Counter[str] = Counter()
        cursor = ""
        while True:
            query: dict[str, Any] = {"limit": PAGE} | ({"cursor": cursor} if cursor else {})
            path = f"/api/v1/workspaces/{self.workspace}/executions"
            page = self._call("GET", path, params=query)
            found.update(item["status"] for item in page["items"])
            cursor = page["next_cursor"] or ""
            if not cursor:
                return found


class Facts:
    """Follows `nhood.executions.v1` from now on, to see each execution's end in the log."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        topic = self._consumer.list_topics(EXECUTIONS, timeout=10).topics[EXECUTIONS]
        ends = [TopicPartition(EXECUTIONS, number) for number in topic.partitions]
        for place in ends:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
        self._consumer.assign(ends)
        self.ended: dict[str, str] = {}
        self.last: dict[int, str] = {}  # by partition

    async def wait_for(self, count: int, seconds: float) -> None:
        """Read until this many executions have ended, or the time is up."""
        until = time.monotonic() + seconds
        while len(self.ended) < count and time.monotonic() < until:
            await asyncio.to_thread(self._read)

    def _read(self) -> None:
        for message in self._consumer.consume(1_000, timeout=0.5):
            record = decode(message.value()) if message.error() is None else None
            if isinstance(record, ExecutionFinished):
                self.ended[record.execution_id] = record.status
                self.last[message.partition() or 0] = record.execution_id

    def close(self) -> None:
        """Leave."""
        self._consumer.close()
