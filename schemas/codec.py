"""Records to bytes and back: Avro single-object encoding; the only module that knows Avro.

Bytes are `C3 01`, the schema's CRC-64-AVRO fingerprint (little-endian), then the Avro body
(https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding): a reader needs no
registry service. avro-python3 parses the schemas and takes their fingerprints, fastavro moves the
bytes (ADR 0003). Every schema ever released stays readable: `schemas/avro/released/`.
"""

import dataclasses
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_type_hints

import avro.schema
import avro.schemanormalization
import fastavro
import orjson

from schemas import events
from schemas.errors import CorruptEvent

MARKER = b"\xc3\x01"
_HEADER_BYTES = 10
_FOLDER = Path(__file__).with_name("avro")

_TYPES: tuple[type, ...] = get_args(events.Record)
_NESTED = (events.Payload, events.Place, events.StepError)


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


def _avro_name(field_name: str) -> str:
    return field_name.rstrip("_")


def _nested_type(hint: object) -> type | None:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return next((cast("type", option) for option in options if option in _NESTED), None)


def _fields_of(record_type: type) -> tuple[tuple[str, str, type | None], ...]:
    """List (attribute, Avro field, type of a record nested in it) of a record class."""
    hints = get_type_hints(record_type)
    return tuple(
        (item.name, _avro_name(item.name), _nested_type(hints[item.name]))
        for item in dataclasses.fields(record_type)
    )


_FIELDS = {record_type: _fields_of(record_type) for record_type in (*_TYPES, *_NESTED)}


def _to_dict(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the record classes
    body: dict[str, Any] = {}
    for name, avro_name, nested in _FIELDS[type(record)]:
        value = getattr(record, name)
        body[avro_name] = value if nested is None or value is None else _to_dict(value)
    return body


def _from_dict(record_type: type, body: Mapping[str, Any]) -> Any:  # noqa: ANN401
    values = []
    for _, avro_name, nested in _FIELDS[record_type]:
        value = body[avro_name]
        values.append(value if nested is None or value is None else _from_dict(nested, value))
    return record_type(*values)


_BY_NAME = {record_type.__name__: record_type for record_type in _TYPES}


def encode(record: events.Record) -> bytes:
    """Write a record with the schema of its class's name."""
    schema = _current()[type(record).__name__]
    buffer = io.BytesIO()
    buffer.write(MARKER)
    buffer.write(schema.fingerprint)
    fastavro.schemaless_writer(buffer, schema.parsed, _to_dict(record))
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
    return cast("events.Record", _from_dict(_BY_NAME[schema.name], cast("dict[str, Any]", body)))


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
