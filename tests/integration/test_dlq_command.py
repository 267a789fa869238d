"""`nhood dlq` as the operator types it, on a real Kafka, PostgreSQL and projector."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from schemas import codec
from schemas.events import DeadLetter
from schemas.lineage import REDRIVEN_HEADER, place_name
from schemas.topics import DEADLETTER, EVENTS
from tests.integration.test_projection import projecting, rows_of, wait_for
from wire.bus import KafkaLog, KafkaPublisher, Record, publish_all
from wire.clock import mint, now_us


class Desk:
    """Puts records aside as a stage does, and types the command."""

    def __init__(self, settings, database, publisher):
        self.settings, self.database, self.publisher = settings, database, publisher
        self.workspace = mint("ws")
        self.env = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "DATABASE_URL": database,
            "NHOOD_STATE_DIR": settings.state_dir,
        }

    async def put(self, number, code="not_json"):
        key, value = self.workspace.encode(), f"broken {number}".encode()
        (place,) = await publish_all(self.publisher, [Record(EVENTS, key, value, [("x", b"1")])])
        letter = DeadLetter(
            original=place, key=key, value=value, headers={"x": b"1"},
            workspace_id=self.workspace, stage="router", class_="unreadable", code=code,
            reason="The value is not JSON.", attempts=1, at_us=now_us(),
        )  # fmt: skip
        record = Record(DEADLETTER, str(place).encode(), codec.encode(letter))
        await publish_all(self.publisher, [record])
        return place

    async def nhood(self, *words):
        command = [sys.executable, "-m", "nhood", "dlq", *words]
        return await asyncio.to_thread(
            subprocess.run, command, env=self.env, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    async def read(self, first, count):
        log = KafkaLog(self.settings.kafka_bootstrap_servers, "test-dlq")
        return await log.read(first.topic, first.partition, first.offset, count)


@pytest.fixture
async def desk(settings, database):
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers, "test-dlq")
    await publisher.start()
    yield Desk(settings, database, publisher)
    await publisher.close()


async def test_operator_finds_looks_at_and_redrives_letters(desk, settings, database):
    places = [await desk.put(number, "not_json" if number < 3 else "empty") for number in range(4)]
    names = [place_name(place) for place in places]
    mine = ("--workspace", desk.workspace)
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "dead_letters", desk.workspace)) == 4)

    shown = await desk.nhood("list", *mine, "--json")
    assert shown.returncode == 0, shown.stderr
    items = json.loads(shown.stdout)["items"]
    assert [item["letter_id"] for item in items] == names[::-1]
    assert items[0]["attempts"] == 1
    told = (await desk.nhood("list", *mine, "--code", "empty", "--since", "1h")).stdout
    assert names[3] in told
    assert names[0] not in told

    one = json.loads((await desk.nhood("show", names[0])).stdout)
    assert one["value"] == {"text": "broken 0", "base64": None}
    assert one["class"] == "unreadable"

    tried = await desk.nhood("redrive", *mine, "--code", "not_json")
    assert "3 would send" in tried.stdout
    assert "Nothing was sent" in tried.stdout
    done = await desk.nhood("redrive", *mine, "--code", "not_json", "--yes", "--rate", "50")
    assert done.returncode == 0, done.stderr
    assert "3 sent" in done.stdout
    stored = await desk.read(places[3], 4)  # one key, so one partition
    assert [item.value for item in stored[1:]] == [b"broken 0", b"broken 1", b"broken 2"]
    assert [item.headers[REDRIVEN_HEADER].decode() for item in stored[1:]] == names[:3]

    assert "In all: nothing." in (await desk.nhood("redrive", *mine, "--code", "not_json")).stdout
    again = await desk.nhood("redrive", names[0], "--yes")
    assert "already redriven" in again.stdout
    assert "[sent again]" in (await desk.nhood("list", *mine)).stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "nonsense"), "There is no dead letter"),
        (("redrive", "nhood.events.v1:0:1", "--code", "x"), "Name letters or filter, not both"),
        (("list", "--since", "yesterday"), "is no time"),
    ],
)
async def test_wrong_words_are_told_in_a_sentence(desk, words, sentence):
    done = await desk.nhood(*words)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


async def test_help_tells_what_to_type(desk):
    told = " ".join((await desk.nhood("redrive", "--help")).stdout.split())
    for words in ("--yes", "oldest first", "Records a second", "Exit code 1"):
        assert words in told
