"""What may stand on the events topic, read into one form: `read_event`.

    headers                                        value                    who writes so
    ce_* and content-type application/avro         Event, Avro              ingest, control
    ce_*                                           any body                 CloudEvents, binary mode
    content-type application/cloudevents+json      the event as JSON        CloudEvents, structured
    none of these                                  {"workspace_id", "type" or "path", "data", …}

The first three are https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
with our extension attributes `workspace`, and optionally `user` and `mode`. A record that cannot be
read raises `CorruptEvent`, whose sentence says how to mend it. The id decides whether an event was
seen before, so a record without one gets it from its place, and a redelivery keeps it.
"""

import base64
import binascii
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import (
    AVRO_CONTENT_TYPE,
    RESERVED_TYPE_PREFIX,
    TYPE_EXECUTE,
    TYPE_PROVIDER,
    TYPE_WEBHOOK,
    Envelope,
    Event,
    Payload,
    Place,
    parse_rfc3339,
)
from schemas.ids import derived_id, is_id
from schemas.starts import PATH_MAX, normal_path

EVENT_BYTES_MAX = 1_048_576  # the body rides through four topics and in every command's state
ATTRIBUTE_MAX = 256  # characters of an id, a type, a source or a user
SUBJECT_MAX = PATH_MAX  # a webhook's subject is its path
ANY_MODE = "any"  # nothing says which: workflows of both modes may start
MODES = ("live", "test")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # no name holds one, and PostgreSQL's text takes no NUL

_STRUCTURED = "application/cloudevents"
_BINARY_MARKS = ("ce_specversion", "ce_id", "ce_type", "ce_source")
_PLAIN_FIELDS = (
    *("workspace_id", "workspace", "type", "path", "data", "user_id", "id", "subject", "mode"),
    *("time", "traceparent"),
)
_KEPT_TYPES = (TYPE_WEBHOOK, TYPE_EXECUTE, TYPE_PROVIDER)


class BadAttribute(CorruptEvent):
    """One attribute of an event cannot be used.

    Attributes:
        name: The attribute.
        what: What is wrong with it, without its name in front.
    """

    def __init__(self, name: str, what: str, code: str) -> None:
        super().__init__(f"The event's {name} {what}.", code=code)
        self.name = name
        self.what = what


@dataclass(frozen=True, slots=True)
class Defaults:
    """What stands in for attributes that an event was not given."""

    id: str
    source: str
    time_us: int


def read_event(
    value: bytes | None, headers: Mapping[str, bytes], place: Place, time_us: int
) -> tuple[Envelope, Event]:
    """Read a record of the events topic, whoever wrote it.

    Args:
        value: The record's value.
        headers: The record's headers; names in any case.
        place: Where the record stands; names an event that has no id.
        time_us: When Kafka got it, UTC, in microseconds; for an event that has no time.

    Raises:
        CorruptEvent: With a stable code (`empty`, `not_json`, `missing_workspace`, …) and a
            sentence for whoever sent it.
    """
    texts = _texts(headers)
    media_type = _media_type(texts.get("content-type", ""))
    if media_type.startswith(_STRUCTURED):
        return _structured(value, media_type, place, time_us)
    if not any(name in texts for name in _BINARY_MARKS):
        return _plain(value, place, time_us)
    if media_type == AVRO_CONTENT_TYPE or (not media_type and codec.is_encoded(value)):
        return Envelope.parse(headers), codec.decode_as(Event, value)
    return _binary(value or b"", texts, place, time_us)


def workspace_hint(value: bytes | None, headers: Mapping[str, bytes]) -> str | None:
    """Say whose an unreadable record probably is, for its dead letter; never raises."""
    try:
        named = headers.get("ce_workspace", b"").decode()
        if not named and value:
            document = orjson.loads(value)
            if isinstance(document, dict):
                named = str(document.get("workspace_id") or document.get("workspace") or "")
    except ValueError:
        return None
    return named if is_id("ws", named) else None


def event_id(workspace: str, mode: str, source: str, given: str) -> str:
    """Turn a sender's id into an event id; the same id from the same source gives the same one.

    An id that is an event id already is kept. The recipe decides what counts as a duplicate: it
    must never change.
    """
    return given if is_id("ev", given) else derived_id("ev", workspace, mode, source, given)


def place_id(workspace: str, place: Place) -> str:
    """Name an event that nobody named, by where it stands."""
    return derived_id("ev", workspace, place.topic, place.partition, place.offset)


def _texts(headers: Mapping[str, bytes]) -> dict[str, str]:
    try:
        return {name.lower(): value.decode() for name, value in headers.items()}
    except UnicodeDecodeError as error:
        raise CorruptEvent(
            "A header is not UTF-8 text; write headers as UTF-8.", code="bad_header"
        ) from error


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _binary(
    body: bytes, texts: Mapping[str, str], place: Place, time_us: int
) -> tuple[Envelope, Event]:
    attributes: dict[str, Any] = {
        name.removeprefix("ce_"): value for name, value in texts.items() if name.startswith("ce_")
    }
    attributes.setdefault("traceparent", texts.get("traceparent"))
    payload = Payload(body, texts.get("content-type") or "application/json")
    return _cloud_event(attributes, payload, place, time_us)


def _structured(
    value: bytes | None, media_type: str, place: Place, time_us: int
) -> tuple[Envelope, Event]:
    if media_type != f"{_STRUCTURED}+json":
        raise CorruptEvent(
            f"The content type {media_type} is not read here; write one event a record as "
            "application/cloudevents+json.",
            code="unknown_format",
        )
    document = _object(value)
    return _cloud_event(document, structured_payload(document), place, time_us)


def structured_payload(document: Mapping[str, Any]) -> Payload:
    """Take the body out of a CloudEvent in JSON.

    Raises:
        CorruptEvent: A `BadAttribute`: datacontenttype, data_base64 or data.
    """
    content_type = document.get("datacontenttype") or "application/json"
    if not isinstance(content_type, str):
        raise _wrong("datacontenttype", "must be text such as application/json", "wrong_type")
    return Payload(_structured_data(document, content_type), content_type)


def _structured_data(document: Mapping[str, Any], content_type: str) -> bytes:
    """Take the body out of a structured event (CloudEvents JSON format 1.0.2, §3.1)."""
    if "data_base64" in document:
        try:
            return base64.b64decode(document["data_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise _wrong("data_base64", "must be base 64 (RFC 4648)", "bad_base64") from error
    if "data" not in document:
        return b""
    data = document["data"]
    if isinstance(data, str) and not _is_json(content_type):
        return data.encode()
    return json_body(data)


def json_body(data: object) -> bytes:
    """Write an event's data.

    Raises:
        CorruptEvent: A `BadAttribute`, where it is nested too deep to be read again.
    """
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError as error:
        raise _wrong("data", "is nested more than 250 levels deep", "too_deep") from error


def _is_json(content_type: str) -> bool:
    media_type = _media_type(content_type)
    return media_type.endswith(("/json", "+json"))


def _cloud_event(
    attributes: Mapping[str, Any], payload: Payload, place: Place, time_us: int
) -> tuple[Envelope, Event]:
    version = attributes.get("specversion", "1.0")
    if version != "1.0":
        raise _wrong("specversion", f"is {str(version)[:16]!r}; write 1.0", "bad_specversion")
    workspace = _workspace(attributes.get("workspace"), "the extension attribute workspace")
    named = {**attributes, "user": attributes.get("user") or attributes.get("userid")}
    return build_event(named, workspace, payload, _defaults(workspace, place, time_us))


def _plain(value: bytes | None, place: Place, time_us: int) -> tuple[Envelope, Event]:
    document = _object(value)
    _known(document, _PLAIN_FIELDS)
    named = document.get("workspace_id") or document.get("workspace")
    workspace = _workspace(named, "the field workspace_id")
    attributes = {**document, "user": document.get("user_id")}
    if "path" in document:
        _check_path(document)
        attributes |= {"type": TYPE_WEBHOOK, "subject": document["path"]}
    payload = Payload(json_body(document.get("data", {})))
    return build_event(attributes, workspace, payload, _defaults(workspace, place, time_us))


def _check_path(document: Mapping[str, Any]) -> None:
    if "type" in document and document["type"] != TYPE_WEBHOOK:
        raise _wrong("path", "cannot stand beside type; give one of them", "path_and_type")
    path = document["path"]
    if not isinstance(path, str) or not path.strip() or "?" in path or "#" in path:
        raise _wrong("path", "must be a webhook's path such as /new-customer", "bad_path")


def build_event(
    attributes: Mapping[str, Any], workspace: str, payload: Payload, defaults: Defaults
) -> tuple[Envelope, Event]:
    """Build an event of the attributes that a stranger gave it.

    Args:
        attributes: type, id, source, subject, time, user, mode, generation, traceparent.
        workspace: Its owner, who was checked.
        payload: Its body.
        defaults: What stands in for attributes that were not given.

    Raises:
        CorruptEvent: `event_too_large`, or a `BadAttribute`.
    """
    if len(payload.data) > EVENT_BYTES_MAX:
        raise CorruptEvent(
            f"The event's body has {len(payload.data)} bytes, {EVENT_BYTES_MAX} are possible; "
            "send a link to the content instead.",
            code="event_too_large",
        )
    type_ = _type(attributes)
    source = _text(attributes, "source") or defaults.source
    subject = _text(attributes, "subject", longest=SUBJECT_MAX)
    if type_ == TYPE_WEBHOOK:
        subject = normal_path(subject or "/")
    mode = _mode(attributes)
    given = _text(attributes, "id")
    named = event_id(workspace, mode, source, given) if given else defaults.id
    time = _text(attributes, "time")
    envelope = Envelope(
        id=named,
        type=type_,
        source=source,
        workspace=workspace,
        time_us=_time_us(time) if time else defaults.time_us,
        subject=subject,
        generation=_generation(attributes),
        traceparent=_text(attributes, "traceparent"),
    )
    kept = {"ce-id": given} if given and given != named else {}
    return envelope, Event(payload, _text(attributes, "user"), mode, headers=kept)


def _defaults(workspace: str, place: Place, time_us: int) -> Defaults:
    return Defaults(place_id(workspace, place), f"/kafka/{place.topic}", time_us)


def _type(attributes: Mapping[str, Any]) -> str:
    found = _text(attributes, "type")
    if not found:
        raise _wrong(
            "type",
            'is missing; write a type such as "order.created", or on Kafka the path of a webhook '
            'such as "/new-customer"',
            "missing_type",
        )
    if found.startswith(RESERVED_TYPE_PREFIX) and found not in _KEPT_TYPES:
        raise _wrong("type", f"starts with {RESERVED_TYPE_PREFIX}, which is ours", "reserved_type")
    if found == TYPE_EXECUTE and not is_id("wf", str(attributes.get("subject"))):
        raise _wrong("subject", f"of {TYPE_EXECUTE} must be a workflow id, wf_…", "bad_subject")
    return found


def _time_us(text: str) -> int:
    found = parse_rfc3339(text)
    if found < 0:
        raise _wrong("time", "lies before 1970", "bad_time")
    return found


def _generation(attributes: Mapping[str, Any]) -> int:
    found = attributes.get("generation", 0)
    text = str(found)
    if isinstance(found, bool) or not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise _wrong("generation", "must be a whole number from 0", "bad_generation")
    return int(text)


def _mode(attributes: Mapping[str, Any]) -> str:
    found = attributes.get("mode") or ANY_MODE
    if found not in (*MODES, ANY_MODE):
        raise _wrong("mode", "must be live or test", "bad_mode")
    return str(found)


def _workspace(found: object, where: str) -> str:
    if not found:
        raise CorruptEvent(
            f"The event says not whose it is; name the workspace (ws_…) in {where}.",
            code="missing_workspace",
        )
    if not isinstance(found, str) or not is_id("ws", found):
        raise CorruptEvent(
            f"{str(found)[:64]!r} is not a workspace id; copy the ws_… id into {where}.",
            code="bad_workspace",
        )
    return found


def _object(value: bytes | None) -> dict[str, Any]:
    if not value:
        raise CorruptEvent(
            "The record has no value; write the event as JSON.",
            code="empty",
        )
    if len(value) > 2 * EVENT_BYTES_MAX:  # base 64 and escapes make a body longer
        raise CorruptEvent(
            f"The record has {len(value)} bytes; an event's body may have {EVENT_BYTES_MAX}.",
            code="event_too_large",
        )
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        hint = " Avro needs the CloudEvents headers beside it." if codec.is_encoded(value) else ""
        raise CorruptEvent(
            f"The value is not JSON ({error}); write a JSON object in UTF-8.{hint}",
            code="not_json",
        ) from error
    if not isinstance(document, dict):
        raise CorruptEvent(
            'The value is JSON but not an object; write {"workspace_id": …, "type": …, "data": …}.',
            code="not_an_object",
        )
    return document


def _known(document: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse other fields: a mistyped `user_id` would act with the wrong account."""
    known = tuple(names)
    for name in document:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "put the event's content under data."
            raise _wrong(name[:64], f"is not a known field; {hint}", "unknown_field")


def _text(attributes: Mapping[str, Any], name: str, *, longest: int = ATTRIBUTE_MAX) -> str | None:
    """Read an attribute as text; numbers are taken for what they look like."""
    found = attributes.get(name)
    if found is None or found == "":
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str):
        raise _wrong(name, "must be text", "wrong_type")
    if len(found) > longest:
        raise _wrong(name, f"has more than {longest} characters; shorten it", "too_long")
    if CONTROL.search(found):
        raise _wrong(name, "holds control characters", "bad_characters")
    return found


def _wrong(name: str, what: str, code: str) -> BadAttribute:
    return BadAttribute(name, what, code)
