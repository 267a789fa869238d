"""Records to bytes and back: Avro single-object encoding; the only module that knows Avro.

Bytes are `C3 01`, the schema's CRC-64-AVRO fingerprint (little-endian), then the Avro body
(https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding): a reader needs no
registry service. avro-python3 parses the schemas and takes their fingerprints, fastavro moves the
bytes (ADR 0003). Every schema ever released stays readable: `schemas/avro/released/`.
"""

import dataclasses
import io
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import avro.schema
import avro.schemanormalization
import fastavro
import msgspec
import orjson

from schemas import events
from schemas.errors import CorruptEvent

MARKER = b"\xc3\x01"
_HEADER_BYTES = 10
_FOLDER = Path(__file__).with_name("avro")

_TYPES: tuple[type, ...] = get_args(events.Record)


@dataclasses.dataclass(frozen=True, slots=True)
class _Schema:
    name: str
    parsed: Any
    fingerprint: bytes


def _parse(text: str) -> _Schema:
    """Parse with avro-python3, the stricter of the two, then prepare for fastavro."""
    strict = avro.schema.parse(text)
    digest = avro.schemanormalization.Fingerprint(
        avro.schemanormalization.ToParsingCanonicalForm(strict), "CRC-64-AVRO"
    )
    parsed = fastavro.parse_schema(orjson.loads(text), named_schemas={})
    return _Schema(strict.name, parsed, digest)


@cache
def _current() -> dict[str, _Schema]:
    """The schemas that are written now, by record name."""
    return {path.stem: _parse(path.read_text()) for path in sorted(_FOLDER.glob("*.avsc"))}


@cache
def _readable() -> dict[bytes, _Schema]:
    """Every schema that was ever released, by fingerprint."""
    released = (_parse(path.read_text()) for path in sorted(_FOLDER.glob("released/*.avsc")))
    return {schema.fingerprint: schema for schema in (*released, *_current().values())}


_BY_NAME = {record_type.__name__: record_type for record_type in _TYPES}
_AS_IS = (bytes,)  # Avro has bytes; msgspec would make them base 64


def encode(record: events.Record) -> bytes:
    """Write a record with the schema of its class's name."""
    schema = _current()[type(record).__name__]
    buffer = io.BytesIO()
    buffer.write(MARKER)
    buffer.write(schema.fingerprint)
    fastavro.schemaless_writer(
        buffer, schema.parsed, msgspec.to_builtins(record, builtin_types=_AS_IS)
    )
    return buffer.getvalue()


def is_encoded(value: bytes | None) -> bool:
    """Say whether the bytes carry the single-object marker."""
    return value is not None and value[:2] == MARKER


def decode(value: bytes | None) -> events.Record:
    """Read a record, whichever released schema wrote it.

    Raises:
        CorruptEvent: `empty`, `no_marker`, `unknown_schema` or `bad_body`.
    """
    if not value:
        raise CorruptEvent("The record has no value.", code="empty")
    if not is_encoded(value):
        raise CorruptEvent(
            "The value is not Avro single-object encoding (it must start with C3 01).",
            code="no_marker",
        )
    schema = _readable().get(value[2:_HEADER_BYTES])
    if schema is None:
        raise CorruptEvent(
            f"No released schema has the fingerprint {value[2:_HEADER_BYTES].hex()}.",
            code="unknown_schema",
        )
    buffer = io.BytesIO(value)
    buffer.seek(_HEADER_BYTES)
    try:
        body = fastavro.schemaless_reader(buffer, schema.parsed, _current()[schema.name].parsed)
    except (EOFError, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as e:
        raise CorruptEvent(
            f"The bytes do not follow the schema {schema.name}.", code="bad_body", detail=str(e)
        ) from e
    if buffer.tell() != len(value):
        raise CorruptEvent(f"Bytes are left over after the {schema.name}.", code="bad_body")
    return msgspec.convert(body, _BY_NAME[schema.name], builtin_types=_AS_IS)


T = TypeVar("T")


def decode_as(record_type: type[T], value: bytes | None) -> T:
    """Read a record that must be of this kind.

    Raises:
        CorruptEvent: As `decode`, or `wrong_record`.
    """
    record = decode(value)
    if not isinstance(record, record_type):
        raise CorruptEvent(
            f"Expected a {record_type.__name__}, found a {type(record).__name__}.",
            code="wrong_record",
        )
    return record
