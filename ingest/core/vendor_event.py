"""A verified vendor request → the events in it; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ingest.core.vendor_request import VendorRequest
from schemas.errors import InvalidInput
from schemas.events import (
    PROVIDER_NOTE,
    QUARANTINE_NOTE,
    TYPE_PROVIDER,
    Envelope,
    Event,
    Payload,
)
from schemas.expression import ABSENT, Template
from schemas.ids import derived_id
from schemas.incoming import ATTRIBUTE_MAX
from schemas.triggers import TriggerSpec

# In one request; no vendor sends as many.
EVENTS_MAX: Final = 1_000
ENDPOINT_NOTE: Final = "nhood-endpoint"
SIGNATURE_NOTE: Final = "nhood-signature"
UNNAMED: Final = "event"


@dataclass(frozen=True, slots=True)
class Draft:
    """One event of a request.

    Attributes:
        name: As the vendor calls it.
        delivery: What stays the same when the vendor sends it again; None: it says nothing.
        account: Whose it is, as the vendor names accounts; None: it does not say.
        item: It alone, as JSON value.
    """

    name: str
    delivery: str | None
    account: str | None
    payload: bytes
    content_type: str
    item: Any


def split(spec: TriggerSpec, request: VendorRequest) -> list[Draft]:
    """Take a request apart.

    Raises:
        InvalidInput: `too_many_events`, `malformed_json`, or `unnamed_event`: it has no name.
    """
    roots = request.roots()
    if spec.payload_field and isinstance(roots["body"], Mapping):
        inner = roots["body"].get(spec.payload_field)
        if isinstance(inner, str):
            roots["body"] = orjson.loads(inner)
    items: Sequence[Any] = [roots["body"]]
    if spec.each is not None:
        found = spec.each.find(roots)
        items = found if isinstance(found, list) else [found]
    if len(items) > EVENTS_MAX:
        raise InvalidInput(
            f"The request holds {len(items)} events; up to {EVENTS_MAX} are taken.",
            code="too_many_events",
        )
    return [_draft(spec, request, roots | {"item": item}, item) for item in items]


def _draft(
    spec: TriggerSpec, request: VendorRequest, roots: Mapping[str, Any], item: object
) -> Draft:
    value = item if spec.payload is None else spec.payload.find(roots)
    roots = {**roots, "payload": value}
    name = _told(spec.event_type, roots) or UNNAMED
    alone = spec.each is None and spec.payload is None and not spec.payload_field
    payload, content_type = request.content, request.headers.get("content-type", "")
    if not alone:
        payload = orjson.dumps(None if value is ABSENT else value)
        content_type = "application/json"
    return Draft(
        name=name[:ATTRIBUTE_MAX],
        delivery=_told(spec.delivery_id, roots),
        account=_told(spec.account_id, roots),
        payload=payload,
        content_type=content_type or "application/octet-stream",
        item=item,
    )


def _told(template: Template | None, roots: Mapping[str, Any]) -> str | None:
    """Render a template; None where what it refers to is not there."""
    if template is None:
        return None
    try:
        return template.text(roots) or None
    except InvalidInput:
        return None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event came in, and for whom.

    Attributes:
        connection: `conn_…`; None: nobody's in particular.
        quarantine: Why no workflow may start from it; empty: they may.
    """

    endpoint: str
    workspace: str
    mode: str
    provider: str
    signed: bool
    connection: str | None
    user: str | None
    quarantine: str = ""


def build(
    draft: Draft, origin: Origin, *, new_id: str, now_us: int, headers: Mapping[str, str]
) -> tuple[Envelope, Event, str]:
    """Give envelope, event and record key.

    The recipe of the id decides what counts as sent twice, so it must never change. The key keeps
    events of one account in their order.

    Args:
        draft: What came.
        origin: Where, and for whom.
        new_id: Id for an event that the vendor does not name.
        now_us: UTC, microseconds.
        headers: Of the request, chosen.
    """
    name = new_id
    if draft.delivery is not None:
        name = derived_id(
            "ev", origin.endpoint, draft.name, draft.delivery, origin.connection or "-"
        )
    notes = {
        **headers,
        PROVIDER_NOTE: origin.provider,
        ENDPOINT_NOTE: origin.endpoint,
        SIGNATURE_NOTE: "valid" if origin.signed else "absent",
    }
    if origin.quarantine:
        notes[QUARANTINE_NOTE] = origin.quarantine
    envelope = Envelope(
        id=name,
        type=TYPE_PROVIDER,
        source=f"/providers/{origin.provider}",
        workspace=origin.workspace,
        time_us=now_us,
        subject=f"{origin.provider}/{draft.name}",
        traceparent=None,
        minted=draft.delivery is None,
    )
    event = Event(
        data=Payload(draft.payload, draft.content_type),
        user=origin.user,
        mode=origin.mode,
        method="POST",
        query=None,
        headers=notes,
    )
    return envelope, event, f"{origin.workspace}/{origin.provider}/{draft.account or name}"
