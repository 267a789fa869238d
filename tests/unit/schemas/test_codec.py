"""Records to bytes and back, and what old and broken bytes do."""

import contextlib
import io
import json
from pathlib import Path

import avro.io
import avro.schema
import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import Envelope, Event, Payload, Place, StepRemembered, parse_rfc3339, rfc3339

FOLDER = Path(codec.__file__).parent / "avro"
RECORD = StepRemembered("ws", "ex", "s", Payload(b"{}"), 1)


@given(st.binary(), st.text(), st.one_of(st.none(), st.text()))
def test_event_survives_its_encoding(data, content_type, user):
    event = Event(Payload(data, content_type), user, headers={"x": "y"})
    assert codec.decode(codec.encode(event)) == event


def test_another_avro_library_reads_our_bytes():
    """avro-python3 decodes what fastavro wrote."""
    encoded = codec.encode(RECORD)
    schema = avro.schema.parse((FOLDER / "StepRemembered.avsc").read_text())
    reader = avro.io.DatumReader(schema, schema)
    body = reader.read(avro.io.BinaryDecoder(io.BytesIO(encoded[10:])))
    assert body["step_id"] == "s"
    assert body["result"]["data"] == b"{}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.avsc")), ids=lambda path: path.stem)
def test_fingerprints_of_both_libraries_agree(path):
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(path.read_text()))
    expected = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    assert codec._current()[path.stem].fingerprint.hex() == expected


@pytest.mark.parametrize("path", sorted(FOLDER.glob("released/*.avsc")), ids=lambda path: path.stem)
def test_what_a_released_schema_wrote_can_be_read_now(path):
    released = avro.schema.parse(path.read_text())
    current = avro.schema.parse((FOLDER / f"{path.stem.split('.')[0]}.avsc").read_text())
    assert avro.io.DatumReader.match_schemas(released, current)
    defaults_missing = [
        field.name
        for field in current.fields
        if field.name not in {f.name for f in released.fields} and not field.has_default
    ]
    assert defaults_missing == []


def test_every_schema_has_been_released():
    released = {path.stem.split(".")[0] for path in FOLDER.glob("released/*.avsc")}
    assert released == {path.stem for path in FOLDER.glob("*.avsc")}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b'{"a": 1}', "no_marker"),
        (codec.MARKER + b"\0" * 8, "unknown_schema"),
        (codec.encode(RECORD)[:-3], "bad_body"),
        (codec.encode(RECORD) + b"x", "bad_body"),
    ],
)
def test_bytes_that_cannot_be_read_say_why(value, code):
    with pytest.raises(CorruptEvent) as caught:
        codec.decode(value)
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_random_bytes_after_a_good_header_never_break_the_reader(body):
    with contextlib.suppress(CorruptEvent):
        codec.decode(codec.encode(RECORD)[:10] + body)


def test_wrong_record_is_refused():
    with pytest.raises(CorruptEvent, match="StepRemembered"):
        codec.decode_as(Event, codec.encode(RECORD))


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_survive_rfc3339(time_us):
    assert parse_rfc3339(rfc3339(time_us)) == time_us


def test_envelope_survives_its_headers():
    envelope = Envelope("i", "t", "/s", "ws", 5, "sub", 2, "00-1-2-01")
    assert Envelope.parse(dict(envelope.headers())) == envelope


def test_place_reads_well():
    assert str(Place("t", 1, 2)) == "t[1]@2"
