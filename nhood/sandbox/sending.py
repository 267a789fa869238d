"""Sends a webhook as a vendor does: a sample of sandbox.yaml, signed, to a given address."""

import secrets
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from nhood.sandbox.sample import RenderedEvent, roots_of
from nhood.sandbox.sheet import read_sheet
from nhood.sandbox.signing import sign, signable
from schemas.errors import InvalidInput, NotFound
from schemas.provider import ProviderSpec, nearest
from schemas.triggers import triggers_of
from wire.clock import now

TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was sent, and what the receiver answered."""

    event: str
    sent: RenderedEvent
    status: int
    answer: str


def prepare(
    spec: ProviderSpec, event: str, url: str, secret: str, body: object = None
) -> tuple[str, RenderedEvent]:
    """Make a webhook, signed.

    Args:
        spec: The vendor.
        event: Its name; empty: the vendor's first sample.
        url: Where it goes.
        secret: What vendor and receiver share.
        body: JSON to send in place of the sample's.

    Returns:
        The event's name and what is sent.

    Raises:
        NotFound: `no_webhooks`, or `unknown_event` with the nearest there is.
        InvalidInput: `not_signable`: only the vendor can sign it.
    """
    triggers = triggers_of(spec)
    samples = read_sheet(spec.folder).events
    if triggers is None or not samples:
        raise NotFound(f"{spec.name} sends no webhooks that are known here.", code="no_webhooks")
    name = event or next(iter(samples))
    if name not in samples:
        hint = nearest(name, samples) or f"; there are {', '.join(samples)}"
        raise NotFound(f"There is no sample of {name!r}{hint}", code="unknown_event")
    delivery = secrets.token_hex(8)
    at = now()
    rendered = samples[name].render(roots_of(spec.slug, url, secret, delivery, at))
    if body is not None:
        headers = {**rendered.headers, "content-type": "application/json"}
        rendered = RenderedEvent(headers, rendered.query, orjson.dumps(body))
    return name, sign(signable(triggers), rendered, url, secret, int(at.timestamp()))


async def send(
    spec: ProviderSpec, event: str, url: str, secret: str, body: object = None
) -> Delivered:
    """Send a webhook once; see `prepare`.

    Raises:
        InvalidInput: `unreachable`: nobody answers there.
    """
    name, signed = prepare(spec, event, url, secret, body)
    query: dict[str, Any] = {} if not signed.query else {"params": signed.query}
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            answer = await client.post(
                url, content=signed.content, headers=dict(signed.headers), **query
            )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        text = f"{url} cannot be reached: {type(error).__name__}. Is the stack up (nhood status)?"
        raise InvalidInput(text, code="unreachable") from error
    return Delivered(name, signed, answer.status_code, answer.text)
