"""Dead letters over HTTP: listed, shown with their bytes, sent again once."""

import pytest

from control.projections.executions import Changes
from control.projections.rows import write
from schemas import codec
from schemas.errors import DependencyDown
from schemas.events import DeadLetter, Place
from schemas.lineage import REDRIVEN_HEADER
from schemas.topics import DEADLETTER, EVENTS, RESULTS
from wire.bus import Record, publish_all
from wire.clock import now_us


class Letters:
    """Puts records aside as the stages do."""

    def __init__(self, api):
        self.api, self.at = api, now_us()

    async def put(self, topic=EVENTS, code="not_json", workspace="own", key=b"k", **more):
        owner = self.api.workspace["workspace_id"] if workspace == "own" else workspace
        self.at += 1_000
        headers = [("x", b"1")]
        value = f"broken {self.at}".encode()
        (place,) = await publish_all(self.api.bus, [Record(topic, key, value, headers)])
        letter = DeadLetter(
            original=place, key=key, value=value, headers=dict(headers), workspace_id=owner,
            stage=more.get("stage", "router"), class_="unreadable", code=code, reason="No.",
            attempts=1, at_us=self.at,
        )  # fmt: skip
        records = [Record(DEADLETTER, str(place).encode(), codec.encode(letter))]
        (stored,) = await publish_all(self.api.bus, records)
        changes = Changes()
        changes.take(stored, letter)
        async with self.api.ports.pool.connection() as on:
            await write(on, changes)
        return f"{place.topic}:{place.partition}:{place.offset}", value

    async def call(self, method, path, body=None, **more):
        live = {"Authorization": f"Bearer {self.api.workspace['api_key']}"}
        return await self.api.call(method, f"/dead-letters{path}", body, headers=live, **more)

    async def redrive(self, **body):
        answer = await self.call("POST", "/redrive", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sent(self, topic=EVENTS):
        """Records of a topic that were sent again, in their order per partition."""
        logs = self.api.bus._logs
        return [
            stored
            for partition in range(3)
            for stored in logs[topic, partition]
            if REDRIVEN_HEADER in stored.headers
        ]


@pytest.fixture
async def letters(api):
    # Each test's log begins at 0 anew, the module's database does not: places would meet.
    async with api.ports.pool.connection() as on:
        await on.execute("TRUNCATE dead_letters, redrives")
    return Letters(api)


async def test_letters_are_listed_newest_first_with_filters_and_pages(letters):
    names = [(await letters.put(code=f"c{n % 2}"))[0] for n in range(5)]
    names.append((await letters.put(RESULTS, stage="projector"))[0])

    async def listed(**query):
        seen = []
        while True:
            answer = await letters.call("GET", "", params={"limit": 2, **query})
            assert answer.status_code == 200, answer.text
            seen += [item["letter_id"] for item in answer.json()["items"]]
            if answer.json()["next_cursor"] is None:
                return seen
            query["cursor"] = answer.json()["next_cursor"]

    assert await listed() == names[::-1]
    assert await listed(code="c1") == [names[3], names[1]]
    assert await listed(stage="projector") == [names[5]]
    assert await listed(topic=RESULTS) == [names[5]]
    assert await listed(**{"class": "refused"}) == []
    at = (await letters.call("GET", f"/{names[2]}")).json()["at"]
    assert await listed(since=at) == names[2:][::-1]
    assert await listed(until=at) == names[:2][::-1]


async def test_letter_is_shown_with_its_record(letters):
    name, value = await letters.put()
    shown = (await letters.call("GET", f"/{name}")).json()
    assert shown["value"] == {"text": value.decode(), "base64": None}
    assert shown["headers"] == {"x": {"text": "1", "base64": None}}
    assert (shown["class"], shown["code"], shown["redriven"]) == ("unreadable", "not_json", None)


async def test_letters_are_their_workspaces_and_live_keys_only(api, other, letters):
    name, _ = await letters.put()
    unowned, _ = await letters.put(workspace=None)
    strangers = Letters(other)
    assert (await strangers.call("GET", f"/{name}")).status_code == 404
    assert (await letters.call("GET", f"/{unowned}")).status_code == 404
    assert (await strangers.call("GET", "")).json()["items"] == []
    told = await strangers.redrive(letter_ids=[name, unowned], dry_run=False)
    assert told["items"] == []
    test_key = await api.call("GET", "/dead-letters")
    assert (test_key.status_code, test_key.json()["code"]) == (403, "live_only")
    assert letters.sent() == []


async def test_redrive_tells_first_and_sends_on_request(letters):
    made = [await letters.put() for _ in range(4)]
    told = await letters.redrive()
    assert (told["dry_run"], told["counts"]) == (True, {"would_send": 4})
    assert letters.sent() == []
    done = await letters.redrive(dry_run=False)
    assert done["counts"] == {"sent": 4}
    sent = letters.sent()
    assert [stored.value for stored in sent] == [value for _, value in made]  # in order
    assert [stored.headers[REDRIVEN_HEADER].decode() for stored in sent] == [n for n, _ in made]
    assert {stored.key for stored in sent} == {b"k"}
    assert sent[0].headers["x"] == b"1"
    shown = (await letters.call("GET", f"/{made[0][0]}")).json()["redriven"]
    assert shown["place"] == done["items"][0]["place"]
    assert (shown["times"], shown["by"][:4]) == (1, "key_")


async def test_redriving_twice_says_so_and_sends_nothing(letters):
    name, _ = await letters.put()
    await letters.redrive(letter_ids=[name], dry_run=False)
    again = await letters.redrive(letter_ids=[name], dry_run=False)
    assert again["counts"] == {"already_redriven": 1}
    assert "stands at" in again["items"][0]["reason"]
    assert (await letters.redrive(dry_run=False))["items"] == []  # the filter leaves them out
    assert len(letters.sent()) == 1
    meant = await letters.redrive(letter_ids=[name], dry_run=False, again=True)
    assert meant["counts"] == {"sent": 1}
    assert len(letters.sent()) == 2
    shown = (await letters.call("GET", f"/{name}")).json()["redriven"]
    assert shown["times"] == 2


async def test_redrive_goes_by_filter_oldest_first_and_says_what_is_left(letters):
    made = [await letters.put(code=f"c{n % 2}") for n in range(6)]
    done = await letters.redrive(code="c0", limit=2, dry_run=False)
    assert [item["letter_id"] for item in done["items"]] == [made[0][0], made[2][0]]
    assert done["remaining"] == 1
    assert [stored.value for stored in letters.sent()] == [made[0][1], made[2][1]]


async def test_redrive_asks_for_the_pauses_of_its_rate(letters, monkeypatch):
    for _ in range(3):
        await letters.put()
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("control.deadletters.asyncio.sleep", pause)
    await letters.redrive(dry_run=False, rate_per_s=1)
    assert len(pauses) == 3
    assert pauses[2] > pauses[1] > pauses[0] > 0


async def test_letter_that_the_log_has_no_more_is_told(letters):
    name, _ = await letters.put()
    letters.api.bus._logs.clear()
    told = await letters.redrive(letter_ids=[name], dry_run=False)
    assert told["counts"] == {"gone": 1}
    assert (await letters.call("GET", f"/{name}")).json()["value"] is None


async def test_letter_that_the_broker_refused_can_be_sent_later(letters, monkeypatch):
    name, _ = await letters.put()

    async def away(records):
        return [DependencyDown("Kafka is away.") for _ in records]

    with monkeypatch.context() as patch:
        patch.setattr(letters.api.bus, "publish", away)
        assert (await letters.redrive(letter_ids=[name], dry_run=False))["counts"] == {"refused": 1}
    assert (await letters.redrive(letter_ids=[name], dry_run=False))["counts"] == {"sent": 1}


async def test_letter_written_by_an_older_release_is_read_from_its_original_place(letters):
    name, value = await letters.put()
    async with letters.api.ports.pool.connection() as on:
        await on.execute("UPDATE dead_letters SET letter_offset = NULL, letter_partition = NULL")
    assert (await letters.call("GET", f"/{name}")).json()["value"]["text"] == value.decode()


async def test_rebuilt_rows_keep_their_mark(letters):
    """The mark is no read side: it survives what `nhood rebuild` does."""
    name, _ = await letters.put()
    await letters.redrive(letter_ids=[name], dry_run=False)
    topic, partition, offset = name.rsplit(":", 2)
    stored = letters.api.bus._logs[DEADLETTER, 0][-1]
    async with letters.api.ports.pool.connection() as on:
        await on.execute("TRUNCATE dead_letters")
        changes = Changes()
        changes.take(stored.place, codec.decode(stored.value))
        await write(on, changes)
    assert Place(topic, int(partition), int(offset)) == codec.decode(stored.value).original
    assert (await letters.redrive(letter_ids=[name], dry_run=False))["counts"] == {
        "already_redriven": 1
    }


@pytest.mark.parametrize(
    "body", [{"limit": 0}, {"rate_per_s": 0}, {"clas": "x"}, {"letter_ids": ["a"], "code": "b"}]
)
async def test_wrong_redrive_is_refused(letters, body):
    assert (await letters.call("POST", "/redrive", body)).status_code == 422
