"""A webhook request → the event that goes on the log; the body stays byte for byte as it came.

    read_webhook    checks the request, finds content type, end customer, mode, order and id
    Delivery.event  gives envelope, event and record key

What decides whether the same delivery came before is its event id: `webhook-id` or
`Idempotency-Key` give the same id each time, so a second delivery starts nothing. Headers are
chosen by name, never kept wholesale: credentials must not get onto the log.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson

from schemas.errors import InvalidInput
from schemas.events import TYPE_WEBHOOK, Envelope, Event, Payload
from schemas.ids import derived_id
from schemas.incoming import ANY_MODE, ATTRIBUTE_MAX, CONTROL, MODES
from schemas.starts import PATH_MAX, normal_path

MODE_HEADER = "x-nhood-mode"
USER_HEADER = "x-nhood-user"
ORDER_HEADER = "x-nhood-order-key"
SIGNATURE_NOTE = "nhood-signature"  # what the event says of its signature: valid or absent
DELIVERY_HEADERS = ("webhook-id", "idempotency-key")
HEADERS_MAX = 32
HEADER_VALUE_MAX = 1_024  # characters; longer ones are left out, not cut
QUERY_MAX = 8_192  # as long as a whole request line of common servers
FORM_FIELDS_MAX = 1_000

_FORM = "application/x-www-form-urlencoded"
_PLAIN_NAMES = frozenset(
    {"content-type", "user-agent", "webhook-id", "webhook-timestamp", "idempotency-key"}
)
_EVENT_NAMES = ("-event", "-event-type", "-event-id", "-topic", "-delivery")
_NEVER = re.compile(
    r"auth|token|secret|signature|sign\b|hmac|key|passw|credential|cookie|session|jwt|cert"
    r"|^x-forwarded|^x-real-ip|^x-nhood|^x-client|-ip$"
)
_SECRET_VALUE = re.compile(
    r"((?:^|&)[^=&]*(?:auth(?!or)|token|secret|signature|hmac|api_?key|access_?key|passw|jwt|credential)"
    r"[^=&]*=)"
    r"[^&]*",
    re.IGNORECASE,
)
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook request as it came; header names in lower case, path and query as text."""

    workspace: str
    path: str
    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook request that was understood.

    Attributes:
        path: In its one form (`schemas.workflow.normal_path`).
        content_type: Of the body; JSON that came under a wrong name has its right one.
        asked_mode: `live` or `test` where the sender says so.
        given_id: The sender's id of the delivery.
    """

    request: Request
    path: str
    content_type: str
    user: str | None
    asked_mode: str | None
    order_key: str | None
    given_id: str | None

    def event(
        self, mode: str, *, signed: bool, new_id: str, now_us: int
    ) -> tuple[Envelope, Event, str]:
        """Give envelope, event and record key.

        Args:
            mode: `live` or `test` (`choose_mode`).
            signed: Whether its signature was checked and right.
            new_id: Id for an event whose sender names none.
            now_us: UTC, microseconds.
        """
        request = self.request
        derived = self._event_id(mode, signed=signed)
        name = derived or new_id
        envelope = Envelope(
            id=name,
            type=TYPE_WEBHOOK,
            source=f"/webhooks/{request.workspace}",
            workspace=request.workspace,
            time_us=now_us,
            subject=self.path,
            traceparent=_traceparent(request.headers.get("traceparent")),
            minted=derived is None,
        )
        kept = kept_headers(request.headers)
        kept[SIGNATURE_NOTE] = "valid" if signed else "absent"
        event = Event(
            data=Payload(request.body, self.content_type),
            user=self.user,
            mode=mode,
            method=request.method,
            query=kept_query(request.query),
            headers=kept,
        )
        key = f"{request.workspace}/{self.order_key}" if self.order_key else name
        return envelope, event, key

    def _event_id(self, mode: str, *, signed: bool) -> str | None:
        """Derive the id; the recipe decides what counts as a duplicate and must never change.

        Unsigned deliveries are told apart from signed ones: otherwise a stranger who guesses an id
        could post first, and the true delivery would count as a duplicate.
        """
        if self.given_id is None:
            return None
        trust = "signed" if signed else "unsigned"
        workspace = self.request.workspace
        return derived_id("ev", workspace, mode, self.path, trust, self.given_id)


def read_webhook(request: Request) -> Delivery:
    """Understand a request.

    Raises:
        InvalidInput: `bad_path`, `malformed_json`, `bad_mode`, `too_long`; the sender can mend it.
    """
    query = _query(request.query)
    content_type, fields = _body(request)
    return Delivery(
        request=request,
        path=webhook_path(request.path),
        content_type=content_type,
        user=_bounded(_user(request.headers, query, fields), "user id"),
        asked_mode=_asked_mode(request.headers, query),
        order_key=_bounded(
            request.headers.get(ORDER_HEADER) or query.get("order_key"), "order key"
        ),
        given_id=_bounded(_first(request.headers, DELIVERY_HEADERS), "delivery id"),
    )


def webhook_path(path: str) -> str:
    """Bring the path of a request (percent-decoded) into its one form.

    Raises:
        InvalidInput: `bad_path`, where it is too long or holds control characters.
    """
    found = normal_path(path)
    if len(found) > PATH_MAX or CONTROL.search(found):
        raise InvalidInput(
            f"A webhook's path has up to {PATH_MAX} characters, no control characters among them.",
            code="bad_path",
        )
    return found


def choose_mode(asked: str | None, found: Collection[str]) -> str:
    """Choose between live and test: what the sender asks for, else what listens on the path.

    Args:
        asked: `live`, `test` or None.
        found: Modes of the workflows on the path; where all of them are test ones it is a test.
            Where nothing listens nothing is decided either: `any`.
    """
    if asked is not None:
        return asked
    if not found:
        return ANY_MODE
    return "test" if all(mode == "test" for mode in found) else "live"


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Choose the headers that go onto the log: what names the event, never a credential."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        if _keeps(name) and len(value) <= HEADER_VALUE_MAX:
            kept[name] = value
            if len(kept) == HEADERS_MAX:
                break
    return kept


@lru_cache(maxsize=1_024)
def _keeps(name: str) -> bool:
    if name in _PLAIN_NAMES:
        return True
    if _NEVER.search(name):
        return False
    return name.startswith(("x-", "ce-")) or name.endswith(_EVENT_NAMES)


def kept_query(query: str) -> str | None:
    """Give the query as it came, with the values of credentials in it replaced by `***`."""
    return _SECRET_VALUE.sub(r"\1***", query) or None


def _query(text: str) -> Mapping[str, str]:
    if not text:
        return {}
    try:
        if len(text) <= QUERY_MAX:
            return dict(parse_qsl(text, max_num_fields=FORM_FIELDS_MAX))
    except ValueError:  # more fields than that
        pass
    raise InvalidInput(
        f"The query has more than {QUERY_MAX} characters or {FORM_FIELDS_MAX} fields.",
        code="too_long",
    )


def _body(request: Request) -> tuple[str, Mapping[str, Any]]:
    """Tell the body's content type and its fields, where it has any.

    JSON sent under curl's default content type, or under none, is taken for the JSON that it is.
    """
    body, content_type = request.body, request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.endswith(("/json", "+json")):
        return content_type, _json_fields(body)
    if media_type in ("", _FORM) and body[:1] in (b"{", b"["):
        try:
            return "application/json", _fields(orjson.loads(body))
        except orjson.JSONDecodeError:
            pass
    if media_type == _FORM and b"user_id=" in body:
        return content_type, _form_fields(body)
    return content_type or "application/octet-stream", {}


def _json_fields(body: bytes) -> Mapping[str, Any]:
    if not body:
        return {}
    try:
        return _fields(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"The body is not JSON, though its content type says so: {error}.",
            code="malformed_json",
        ) from error


def _fields(document: object) -> Mapping[str, Any]:
    return document if isinstance(document, dict) else {}


def _form_fields(body: bytes) -> Mapping[str, Any]:
    try:
        return dict(parse_qsl(body.decode(), max_num_fields=FORM_FIELDS_MAX))
    except ValueError:  # not UTF-8, or more fields than that: it is kept all the same
        return {}


def _user(
    headers: Mapping[str, str], query: Mapping[str, str], fields: Mapping[str, Any]
) -> str | None:
    named = headers.get(USER_HEADER) or query.get("user_id")
    if named:
        return named
    found = fields.get("user_id")
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return None
    return str(found) or None


def _asked_mode(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    asked = headers.get(MODE_HEADER)
    if asked is not None:
        if asked not in MODES:
            raise InvalidInput(f"{MODE_HEADER} must be live or test.", code="bad_mode")
        return asked
    # The query belongs to the sender: another meaning of `mode` there is none of our business.
    found = query.get("mode")
    return found if found in MODES else None


def _first(headers: Mapping[str, str], names: Collection[str]) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)


def _bounded(text: str | None, what: str) -> str | None:
    if text is None:
        return None
    if len(text) > ATTRIBUTE_MAX:
        raise InvalidInput(f"The {what} has more than {ATTRIBUTE_MAX} characters.", code="too_long")
    if CONTROL.search(text):
        raise InvalidInput(f"The {what} holds control characters.", code="bad_characters")
    return text


def _traceparent(text: str | None) -> str | None:
    return text if text is not None and _TRACEPARENT.match(text) else None
