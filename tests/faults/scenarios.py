"""What is done to the product under load; each ends with everything running again."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Final

import httpx
from confluent_kafka import Producer

from schemas.topics import EVENTS
from tests.faults.field import LONG, Field

STAGES: Final = ("gateway", "router", "executors", "projector")
TIMES: Final = 6 if LONG else 2
EVERYTHING: Final = LONG or os.environ.get("NHOOD_FAULTS_ALL") == "1"
PAUSE_S: Final = 30.0 if EVERYTHING else 5.0
GAP_S: Final = 5.0 if LONG else 1.0
FAULTY: Final = 400 if LONG else 40
Act = Callable[[Field], None]


def _stage(name: str, number: int) -> Act:
    def act(field: Field) -> None:
        for _ in range(TIMES):
            field.end(name, number)
            field.part(name)
            time.sleep(field.random.uniform(0.2, GAP_S))

    return act


def _all_stages(field: Field) -> None:
    for _ in range(TIMES):
        for name in field.random.sample(STAGES, len(STAGES)):
            field.end(name, signal.SIGKILL)
        time.sleep(GAP_S)


def _server(name: str, number: int) -> Act:
    def act(field: Field) -> None:
        field.end(name, number)
        field.part(name)

    return act


def _paused(name: str) -> Act:
    return lambda field: field.pause(name, PAUSE_S)


def _cut(field: Field) -> None:
    for _ in range(TIMES):
        field.cut_database()
        time.sleep(GAP_S)


def _joined(name: str) -> Act:
    def act(field: Field) -> None:
        for _ in range(TIMES):
            with field.another(name):
                time.sleep(3 * GAP_S)

    return act


def _vendors(**fault: object) -> Act:
    def act(field: Field) -> None:
        field.vendors(fault, FAULTY)
        time.sleep(GAP_S)

    return act


def _poison(field: Field) -> None:
    """Publish what nobody can read among the rest, and what is as large as can be."""
    producer = Producer({"bootstrap.servers": field.product.kafka})
    for value in (b"\xff\x00 not anything", b'{"half": ', b"\xc3\x01" + bytes(40), b""):
        producer.produce(EVENTS, value, key=b"poison")
    producer.flush(20)
    large = {"name": "large", "filler": "x" * (1024 * 1024 - 200)}
    answer = httpx.post(
        f"{field.product.url}/webhooks/{field.workspace.id}/nobody-listens", json=large, timeout=30
    )
    assert answer.status_code == 202, answer.text


_ALL: Final[Mapping[str, Act]] = {
    "nothing": lambda _: None,
    **{f"{name} killed with -9, {TIMES} times": _stage(name, signal.SIGKILL) for name in STAGES},
    **{
        f"{name} stopped by SIGTERM, {TIMES} times": _stage(name, signal.SIGTERM) for name in STAGES
    },
    f"all stages killed with -9, {TIMES} times": _all_stages,
    f"second router joins and leaves, {TIMES} times": _joined("router"),
    f"second executors join and leave, {TIMES} times": _joined("executors"),
    "broker killed with -9": _server("kafka", signal.SIGKILL),
    f"broker paused {PAUSE_S:.0f} s": _paused("kafka"),
    "PostgreSQL stopped (fast)": _server("postgres", signal.SIGINT),
    # As after a crash: it recovers from its log.
    "PostgreSQL stopped at once": _server("postgres", signal.SIGQUIT),
    f"PostgreSQL's disk full for {PAUSE_S:.0f} s": lambda field: field.fill_disk(PAUSE_S),
    f"connections to PostgreSQL cut, {TIMES} times": _cut,
    "Valkey killed with -9": _server("valkey", signal.SIGKILL),
    f"vendors: {FAULTY} times 429": _vendors(status=429, headers={"Retry-After": "1"}, body={}),
    f"vendors: {FAULTY} times 503": _vendors(status=503, body={}),
    f"vendors: {FAULTY} times broken off before": _vendors(reset="before"),
    f"vendors: {FAULTY} times broken off after it was done": _vendors(reset="after"),
    f"vendors: {FAULTY} times half an answer": _vendors(truncate=True),
    f"vendors: {FAULTY} times HTML with status 200": _vendors(
        status=200, body="<html>hello</html>"
    ),
    f"vendors: {FAULTY} times 6 s late": _vendors(delay_ms=6_000),
    "unreadable records and one of 1 MB": _poison,
}
# What `make test` breaks; `make soak` breaks everything, for longer.
_SHORT: Final = (
    *(
        "nothing",
        "executors killed",
        "router stopped",
        "all stages",
        "second router",
        "broker killed",
    ),
    *("disk full", "connections to", "Valkey", "429", "after it was done", "unreadable"),
)
SCENARIOS: Final[Mapping[str, Act]] = {
    name: act for name, act in _ALL.items() if EVERYTHING or any(w in name for w in _SHORT)
}
