"""The programs in docs/webhooks.md do what the page says."""

import re
from pathlib import Path

import httpx
import orjson
import pytest

from ingest.core.signature import Valid, parse_secret, verify
from schemas.events import Place
from schemas.incoming import read_event
from tests.unit.ingest.conftest import SECRET, WS

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


@pytest.fixture(scope="module")
def programs():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_signing_program_makes_a_valid_signature(programs, monkeypatch):
    sent = {}
    monkeypatch.setattr(httpx, "post", lambda url, **more: sent.update(more, url=url))
    programs["send"]("http://nhood/webhooks/ws/a", SECRET, "msg_1", '{"name": "Zoë"}')
    now = int(sent["headers"]["webhook-timestamp"])
    body = sent["content"].encode()
    assert verify([parse_secret(SECRET)], sent["headers"], body, now) == Valid()


def test_publishing_program_writes_what_is_read(programs, monkeypatch):
    written = []

    class Producer:
        def produce(self, topic, value, key):
            written.append((topic, value, key))

        def flush(self):
            pass

    monkeypatch.setitem(programs, "Producer", lambda config: Producer())
    programs["publish"]("kafka:9092", WS)
    ((topic, value, _),) = written
    envelope, event = read_event(value, {}, Place(topic, 0, 0), 1)
    assert (topic, envelope.subject, event.user) == (
        "nhood.events.v1",
        "/new-customer",
        "customer_42",
    )
    assert orjson.loads(event.data.data) == {"customer": {"name": "Ada"}}
