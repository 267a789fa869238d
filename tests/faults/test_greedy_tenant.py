"""Nobody starves: a workspace with ten steps beside one with thousands, poison, calls that hang.

Prints the small one's p99 alone and beside the greedy one; `NHOOD_FAULTS_QUEUED` sets how many
events the greedy one has queued (5,000; the long form 100,000).
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest
from confluent_kafka import Producer

from tests.product import Product, Workspace, wait_for

QUEUED = int(os.environ.get("NHOOD_FAULTS_QUEUED", "5000"))
FEW = 10
ROUNDS = 3
SLOW_MS = 200
HANGS_MS = 25_000
STEPS = "nhood.steps.slack.v1"


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Iterator[Product]:
    folder: Path = tmp_path_factory.mktemp("greedy")
    for parent in (folder, *list(folder.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    burst = {"NHOOD_INGEST_BURST": str(max(QUEUED * 2, 6_000))}
    found = Product(folder / "state", burst)
    try:
        found.up()
        yield found
    finally:
        found.down()


def workspace(product: Product, action: str, event: str, **config) -> Workspace:
    made = Workspace.make(product)
    made.connect("slack")
    step = {"id": "one", "provider": "slack", "action": action, "config": config}
    made.save({"name": event, "trigger": {"type": "event", "event_type": event}, "steps": [step]})
    return made


@pytest.fixture(scope="module")
def small(product) -> Iterator[Workspace]:
    made = workspace(product, "send_message", "few", channel="#general", text="few")
    yield made
    made.client.close()


def send(of: Workspace, event: str, count: int) -> None:
    """Send events, 1,000 a call."""
    for first in range(0, count, 1_000):
        events = [{"type": event, "user_id": "u1"}] * min(1_000, count - first)
        answer = of.call("POST", f"{of.path}/events", json={"events": events}, timeout=60)
        assert answer.status_code == 202, answer.text


def ended(of: Workspace) -> dict[str, int]:
    with psycopg.connect(of.product.state.env["DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT status, count(*) FROM executions WHERE workspace_id = %s GROUP BY status",
            (of.id,),
        ).fetchall()
    return dict(rows)


def has_ended(of: Workspace, count: int) -> bool:
    return ended(of).get("succeeded", 0) >= count


def few(small: Workspace) -> None:
    """Send a few events, one after the other's end."""
    before = ended(small).get("succeeded", 0)
    for number in range(1, FEW + 1):
        send(small, "few", 1)
        wait_for(partial(has_ended, small, before + number), "a step of the small one", 60)


def slowest_ms(small: Workspace, last: int) -> float:
    """From an event's acceptance to its execution's end: the slowest of the last ones."""
    with psycopg.connect(small.product.state.env["DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM finished_at - event_time) * 1000 FROM executions"
            " WHERE workspace_id = %s ORDER BY started_at DESC LIMIT %s",
            (small.id, last),
        ).fetchall()
    return max(float(row[0]) for row in rows)


def let_go_wrong(product: Product, action: str, fault: dict) -> None:
    script = {"provider": "slack", "action": action, "times": 1_000_000, "fault": fault}
    url = f"http://127.0.0.1:{product.env['NHOOD_SANDBOX_PORT']}/_sandbox/faults"
    httpx.post(url, json=script).raise_for_status()


@pytest.mark.timeout(600)
def test_few_steps_pass_thousands_of_another_workspace(product, small, capsys, request):
    let_go_wrong(product, "list_channels", {"delay_ms": SLOW_MS})
    greedy = workspace(product, "list_channels", "many")
    request.addfinalizer(greedy.client.close)
    few(small)  # everything is warm after this
    for _ in range(ROUNDS):
        few(small)
    alone = slowest_ms(small, ROUNDS * FEW)
    send(greedy, "many", QUEUED)
    wait_for(lambda: sum(ended(greedy).values()) == QUEUED, "all of them to be started", 300, 0.2)
    waiting = ended(greedy).get("running", 0)
    for _ in range(ROUNDS):
        few(small)
    beside = slowest_ms(small, ROUNDS * FEW)
    left = ended(greedy).get("running", 0)
    wait_for(lambda: ended(greedy) == {"succeeded": QUEUED}, "the greedy one's end", 500, 0.5)
    with capsys.disabled():
        print(
            f"\nsmall workspace, slowest of {ROUNDS * FEW}: alone {alone:.0f} ms, beside {waiting}"
            f" queued steps of another {beside:.0f} ms ({beside / alone:.1f} times); of these"
            f" {left} still waited when it was done"
        )
    assert left > 0, "the greedy one was done before: the queue was too short to tell anything"
    assert ended(small) == {"succeeded": (1 + 2 * ROUNDS) * FEW}


@pytest.mark.timeout(180)
def test_poison_is_set_aside_and_its_partition_goes_on(product, small):
    producer = Producer({"bootstrap.servers": product.kafka})
    for partition in range(3):
        for value in (b"", b"\xc3\x01 no record", b"{}", b"x" * 100_000):
            producer.produce(STEPS, value, f"{small.id}/u1", partition=partition)
    assert producer.flush(30) == 0
    few(small)

    def letters() -> bool:
        with psycopg.connect(product.state.env["DATABASE_URL"]) as connection:
            row = connection.execute(
                "SELECT count(*) FROM dead_letters WHERE topic = %s", (STEPS,)
            ).fetchone()
        return row is not None and row[0] == 12

    wait_for(letters, "the poison among the dead letters", 30)


@pytest.mark.timeout(180)
def test_calls_that_hang_stop_neither_their_partition_nor_their_customer(product, small):
    let_go_wrong(product, "get_user", {"delay_ms": HANGS_MS})
    step = {"id": "one", "provider": "slack", "action": "get_user", "config": {"user": "U1"}}
    trigger = {"type": "event", "event_type": "hangs"}
    hangs = small.save({"name": "hangs", "trigger": trigger, "steps": [step]})
    send(small, "hangs", FEW)

    def hanging() -> int:
        path = f"{small.path}/executions"
        query = {"workflow_id": hangs, "status": "running"}
        return len(small.call("GET", path, params=query).json()["items"])

    wait_for(lambda: hanging() == FEW, "all calls to hang")
    few(small)
    assert hanging() == FEW
