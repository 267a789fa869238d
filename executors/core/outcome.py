"""How a call ended, as values, and how a vendor's answer is read as one; pure.

    Succeeded      the vendor did it
    Rejected       it will not do this, and the same call would be refused again
    Throttled      too many calls; later it may
    Unavailable    it did not do it, for reasons of its own; later it may
    Unauthorised   the credential is not accepted; a refresh or the customer can mend it
    Unknown        it may or may not have done it

What an answer means comes from the provider's error map; what that leaves open follows HTTP. A 5xx
is told apart by what may have happened (RFC 9110 §15.6): 503 says that the server did not take the
request on. After 500, 502 or 504 the effect may be there, so an action that would do harm when
repeated is then `Unknown`, unless the vendor says that it may be tried again (`api.retryable`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from executors.core.delay import parse_delay, vendor_now
from executors.core.request import Response
from schemas.expression import ABSENT, Template
from schemas.provider import (
    ActionSpec,
    ErrorRule,
    OutcomeKind,
    ProviderSpec,
    RetryHint,
    render_all,
)
from schemas.transforms import as_text

TEXT_MAX: Final = 300
"""Characters of a vendor's words that are kept: enough to understand, too few to fill a log."""

CODE_MAX: Final = 100
"""Characters that a vendor's code may have; what is longer is no code."""

BARE_LIST: Final = "items"
"""Under which name a list stands in the output where the vendor answers it bare."""

FailureKind = Literal["never_sent", "may_have_arrived"]
_REQUEST_IDS: Final = ("x-request-id", "x-slack-req-id", "atl-traceid", "x-zendesk-request-id")


@dataclass(frozen=True, slots=True)
class _Ended:
    """What all outcomes have.

    Attributes:
        status: HTTP status, None where there was no answer.
        code: Stable name: the vendor's code, or ours such as `http_404`.
        message: One sentence for the customer.
        detail: For operators: status, the vendor's code and words, its request id.
        output: The step's output, of a success.
        vendor_id: The vendor's id of what was made or read.
        retry_after_s: How long the vendor asks to wait, in seconds.
    """

    status: int | None = None
    code: str = ""
    message: str = ""
    detail: str = ""
    output: Any = None
    vendor_id: str | None = None
    retry_after_s: float | None = None
    kind: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Succeeded(_Ended):
    """The vendor did it."""

    kind: ClassVar[str] = "succeeded"


@dataclass(frozen=True, slots=True)
class Rejected(_Ended):
    """The vendor refuses, and would again."""

    kind: ClassVar[str] = "rejected"


@dataclass(frozen=True, slots=True)
class Throttled(_Ended):
    """Too many calls."""

    kind: ClassVar[str] = "throttled"


@dataclass(frozen=True, slots=True)
class Unavailable(_Ended):
    """Not done, or harmless to repeat."""

    kind: ClassVar[str] = "unavailable"


@dataclass(frozen=True, slots=True)
class Unauthorised(_Ended):
    """The credential is not accepted."""

    kind: ClassVar[str] = "unauthorised"


@dataclass(frozen=True, slots=True)
class Unknown(_Ended):
    """It may have happened, and a repeat might do it twice."""

    kind: ClassVar[str] = "unknown"


Outcome = Succeeded | Rejected | Throttled | Unavailable | Unauthorised | Unknown
Failure = Rejected | Throttled | Unavailable | Unauthorised | Unknown

_KINDS: Final[Mapping[OutcomeKind, type[Failure]]] = {
    "rejected": Rejected,
    "throttled": Throttled,
    "unavailable": Unavailable,
    "unauthorised": Unauthorised,
    "unknown": Unknown,
}


def classify(
    spec: ProviderSpec, action: ActionSpec, response: Response, params: Mapping[str, Any]
) -> Outcome:
    """Read a vendor's answer; never raises.

    Args:
        spec: The provider.
        action: The action that was called.
        response: Its answer.
        params: The params, since messages and results may name them.
    """
    roots: dict[str, Any] = {
        "body": response.body,
        "headers": response.headers,
        "status": response.status,
        "params": params,
    }
    if not _failed(spec, action, roots):
        is_wanted = action.output is None and isinstance(action.example.body, dict | list)
        if is_wanted and not response.is_json:
            return _unreadable(spec, action, response)
        return succeeded(spec, action, roots)
    roots["code"] = code = _code(spec.api.failure.codes, roots) or f"http_{response.status}"
    roots["text"] = text = _first(spec.api.failure.texts, roots) or code
    for rule in (*action.errors, *spec.errors):
        if _fits(rule, code, roots):
            return _by_rule(spec, action, rule, response, roots)
    kind = _by_status(spec, action, response.status)
    message = f"{spec.name} {_SAYS[kind]}" + (f": {text}" if kind == "rejected" else "")
    return _failure(spec, kind, response, roots, message)


def classify_failure(
    spec: ProviderSpec, action: ActionSpec, kind: FailureKind, detail: str
) -> Unavailable | Unknown:
    """Say what a call without an answer means.

    Args:
        spec: The provider.
        action: The action that was called.
        kind: `never_sent`: no byte of the request reached the vendor (no connection);
            `may_have_arrived`: it was sent, and no whole answer came.
        detail: What went wrong, for operators; no secret.
    """
    if kind == "never_sent":
        return Unavailable(
            code="no_connection", message=f"{spec.name} cannot be reached.", detail=detail
        )
    made = Unavailable if action.repeatable else Unknown
    return made(code="no_answer", message=f"{spec.name} did not answer.", detail=detail)


_SAYS: Final[Mapping[OutcomeKind, str]] = {
    "rejected": "refuses this",
    "throttled": "asks to slow down.",
    "unavailable": "is not available at the moment.",
    "unauthorised": "no longer accepts this connection; please reconnect the account.",
    "unknown": "failed in a way that leaves open whether it was done.",
}


def _failed(spec: ProviderSpec, action: ActionSpec, roots: Mapping[str, Any]) -> bool:
    status = roots["status"]
    if action.success is not None:
        return not action.success.holds(roots)
    if not 200 <= status < 300:
        return True
    shape = spec.api.failure.when
    if shape is not None and shape.holds(roots):
        return True
    return action.failure_when is not None and action.failure_when.holds(roots)


def succeeded(spec: ProviderSpec, action: ActionSpec, roots: Mapping[str, Any]) -> Succeeded:
    """Give the output of an answer that is a success.

    Args:
        spec: The provider.
        action: The action.
        roots: body, headers, status and params.
    """
    body = roots["body"]
    lifted = render_all(action.result, roots)
    shown = action.output or spec.api.output
    if shown is not None:
        found = shown.find(roots)
        body = None if found is ABSENT else found
    if isinstance(body, list):
        body = {BARE_LIST: body}
    output = {**body, **lifted} if isinstance(body, Mapping) else body
    if lifted and not isinstance(body, Mapping):
        output = lifted if body is None else {**lifted, "body": body}
    vendor_id = lifted.get("id")
    return Succeeded(
        status=roots["status"],
        output={} if output is None else output,
        vendor_id=None if vendor_id is None else as_text(vendor_id),
    )


def _unreadable(spec: ProviderSpec, action: ActionSpec, response: Response) -> Outcome:
    made = Unavailable if action.repeatable else Unknown
    kind = response.headers.get("content-type", "no content type")
    return made(
        status=response.status,
        code="unreadable_answer",
        message=f"{spec.name} gave an answer that cannot be read.",
        detail=f"HTTP {response.status} with {kind}, {len(response.content)} bytes, not JSON",
    )


def _fits(rule: ErrorRule, code: str, roots: Mapping[str, Any]) -> bool:
    if rule.statuses and roots["status"] not in rule.statuses:
        return False
    if rule.codes and code not in rule.codes:
        return False
    return rule.when is None or rule.when.holds(roots)


def _by_rule(
    spec: ProviderSpec,
    action: ActionSpec,
    rule: ErrorRule,
    response: Response,
    roots: Mapping[str, Any],
) -> Outcome:
    kind: OutcomeKind = rule.outcome
    if kind == "unavailable" and rule.may_have_happened and not action.repeatable:
        kind = "unknown"
    named = rule.code.find(roots) if rule.code is not None else ABSENT
    message = rule.message.find(roots) if rule.message is not None else ABSENT
    if message is ABSENT:
        words = f": {roots['text']}" if kind == "rejected" else ""
        message = f"{spec.name} {_SAYS[kind]}{words}"
    roots = roots if named is ABSENT else {**roots, "code": as_text(named)}
    hints = (rule.retry_after,) if rule.retry_after is not None else spec.api.retry_after
    return _failure(spec, kind, response, roots, as_text(message), hints)


def _by_status(spec: ProviderSpec, action: ActionSpec, status: int) -> OutcomeKind:
    if status == 401:
        return "unauthorised"
    if status == 429:
        return "throttled"
    if status in (408, 425, 503) or status in spec.api.retryable:
        return "unavailable"
    if status >= 500:
        return "unavailable" if action.repeatable else "unknown"
    return "rejected"


def _failure(
    spec: ProviderSpec,
    kind: OutcomeKind,
    response: Response,
    roots: Mapping[str, Any],
    message: str,
    hints: tuple[RetryHint, ...] | None = None,
) -> Outcome:
    code, text = roots["code"], roots["text"]
    request_id = next((response.headers[n] for n in _REQUEST_IDS if n in response.headers), "")
    detail = f"HTTP {response.status} {code}" + (f": {text}" if text != code else "")
    return _KINDS[kind](
        status=response.status,
        code=code,
        message=message[:TEXT_MAX],
        detail=detail[:TEXT_MAX] + (f" (request {request_id[:80]})" if request_id else ""),
        retry_after_s=_delay(hints or spec.api.retry_after, response, roots),
    )


def _delay(
    hints: tuple[RetryHint, ...], response: Response, roots: Mapping[str, Any]
) -> float | None:
    for hint in hints:
        value = hint.value.find(roots)
        if value is not ABSENT and value is not None:
            now = vendor_now(response.headers, response.received_at_s)
            delay = parse_delay(value, hint.form, now)
            if delay is not None:
                return delay
    return None


def _code(templates: tuple[Template, ...], roots: Mapping[str, Any]) -> str:
    """Give the vendor's code: the first that is there and is a word, not a sentence."""
    for template in templates:
        code = _first((template,), roots)
        if code and len(code) <= CODE_MAX and not any(c.isspace() for c in code):
            return code
    return ""


def _first(templates: tuple[Template, ...], roots: Mapping[str, Any]) -> str:
    for template in templates:
        value = template.find(roots)
        if value is not ABSENT and value not in (None, "", [], {}):
            return as_text(value)[:TEXT_MAX]
    return ""
