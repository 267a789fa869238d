"""The body of `POST …/events` → its events, each understood or with what is wrong with it.

    application/json                      one event object, or {"events": [object, …]}
    application/cloudevents+json          one CloudEvent
    application/cloudevents-batch+json    [CloudEvent, …]

An event that cannot be used does not keep the others from being taken.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from msgspec.structs import replace

from schemas.errors import CorruptEvent, InvalidInput, Problem
from schemas.events import RESERVED_TYPE_PREFIX, Envelope, Event, Payload
from schemas.incoming import BadAttribute, Defaults, build_event, json_body, structured_payload

EVENTS_MAX = 1_000
CALL_BYTES_MAX = 16 * 1_048_576  # what one call may hold in memory, all its events together
CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"
_FIELDS = ("type", "data", "id", "subject", "time", "user_id", "order_key", "source")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends.

    Attributes:
        new_id: Makes an id for an event that has none.
        now_us: UTC, microseconds; the time of an event that tells none.
    """

    workspace: str
    mode: str
    new_id: Callable[[], str]
    now_us: int


@dataclass(frozen=True, slots=True)
class Understood:
    """An event that can be written, with its record key."""

    envelope: Envelope
    event: Event
    key: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that cannot be used."""

    problems: tuple[Problem, ...]


Item = Understood | Refused


def read_batch(body: bytes, content_type: str, sender: Sender) -> list[Item]:
    """Understand the events of a call, in their order.

    Raises:
        InvalidInput: The body as a whole is no list of 1 to `EVENTS_MAX` events.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error}.", code="malformed_json") from error
    if media_type in (CLOUDEVENT, CLOUDEVENTS):
        listed = document if media_type == CLOUDEVENTS else [document]
        return [_item(item, index, _cloud_event, sender) for index, item in _numbered(listed)]
    listed = document
    if isinstance(document, Mapping):
        listed = document.get("events", [document])
        if "events" in document and len(document) > 1:
            raise _bad_call("nothing stands beside it", "too_many_fields")
    return [_item(item, index, _native, sender) for index, item in _numbered(listed)]


def _numbered(listed: object) -> Sequence[tuple[int, Any]]:
    if not isinstance(listed, list):
        raise _bad_call("it must be a list of event objects", "wrong_type")
    if not 1 <= len(listed) <= EVENTS_MAX:
        raise _bad_call(
            f"it holds {len(listed)} events; 1 to {EVENTS_MAX} go into a call",
            "too_many_events" if listed else "no_events",
        )
    return list(enumerate(listed))


def _bad_call(message: str, code: str) -> InvalidInput:
    mend = 'Write {"events": [{"type": "order.created", "data": {}}]}.'
    problem = Problem("events", message, mend, code)
    return InvalidInput(f"events: {message}. {mend}", problems=[problem], code=code)


def _item(
    item: object,
    index: int,
    read: Callable[[Mapping[str, Any], Sender], Understood],
    sender: Sender,
) -> Item:
    place = f"events[{index}]"
    if not isinstance(item, Mapping):
        return Refused((Problem(place, "must be an object", code="wrong_type"),))
    try:
        return read(item, sender)
    except BadAttribute as error:
        known = error.name == "user" and error.code != "unknown_field"
        named = "user_id" if known else error.name
        return Refused((Problem(f"{place}.{named}", error.what, code=error.code),))
    except CorruptEvent as error:
        return Refused((Problem(place, error.public, code=error.code),))


def _native(item: Mapping[str, Any], sender: Sender) -> Understood:
    for name in item:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else "put the event's content under data"
            raise BadAttribute(name[:64], f"is not a known field; {hint}", "unknown_field")
    payload = Payload(json_body(item.get("data", {})))
    order_key = item.get("order_key")
    return _understood({**item, "user": item.get("user_id")}, payload, order_key, sender)


def _cloud_event(item: Mapping[str, Any], sender: Sender) -> Understood:
    if item.get("specversion") != "1.0":
        raise BadAttribute("specversion", "must be 1.0", "bad_specversion")
    for name in ("id", "source", "type"):
        if not item.get(name):
            raise BadAttribute(name, "is missing; CloudEvents requires it", "missing_attribute")
    if item.get("workspace") not in (None, sender.workspace):
        raise BadAttribute("workspace", "is another one than the address says", "bad_workspace")
    if item.get("mode") not in (None, sender.mode):
        raise BadAttribute("mode", f"is not the key's, which is {sender.mode}", "bad_mode")
    user = item.get("user") or item.get("userid")
    payload = structured_payload(item)
    return _understood({**item, "user": user}, payload, item.get("partitionkey"), sender)


def _understood(
    attributes: Mapping[str, Any], payload: Payload, order_key: object, sender: Sender
) -> Understood:
    if str(attributes.get("type")).startswith(RESERVED_TYPE_PREFIX):
        raise BadAttribute(
            "type", f"starts with {RESERVED_TYPE_PREFIX}, which is ours", "reserved_type"
        )
    if order_key is not None and not isinstance(order_key, (str, int)):
        raise BadAttribute("order_key", "must be text", "wrong_type")
    defaults = Defaults(sender.new_id(), f"/api/{sender.workspace}", sender.now_us)
    theirs = {name: value for name, value in attributes.items() if name != "generation"}
    envelope, event = build_event(
        {**theirs, "mode": sender.mode}, sender.workspace, payload, defaults
    )
    envelope = replace(envelope, minted=envelope.id == defaults.id)
    key = f"{sender.workspace}/{order_key}" if order_key else envelope.id
    return Understood(envelope, event, key)
