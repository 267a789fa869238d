"""Sends a webhook as a vendor does: a sample of sandbox.yaml, signed, to a given address."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from nhood.sandbox.sample import RenderedEvent, roots_of
from nhood.sandbox.sheet import read_sheet
from nhood.sandbox.signing import sign, signable
from schemas.errors import InvalidInput, NotFound
from schemas.provider import ProviderSpec, nearest
from schemas.triggers import triggers_of
from wire.clock import now
from wire.http import AllowPrivate, open_client

TIMEOUT_S: Final = 30
TRIES: Final = 3
PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was sent, and what the receiver answered."""

    event: str
    sent: RenderedEvent
    status: int
    answer: str
    tries: int = 1


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
    spec: ProviderSpec,
    event: str,
    url: str,
    secret: str,
    body: object = None,
    allow_private: AllowPrivate = lambda _host, _port: True,
) -> Delivered:
    """Send a webhook; see `prepare`, and `wire.http.open_client` for `allow_private`.

    As vendors do, it is sent again, the very same, where the receiver is busy or does not answer:
    up to `TRIES` times, after what `Retry-After` says, within `PAUSE_MAX_S`.

    Raises:
        InvalidInput: `unreachable`: nobody answers there.
    """
    name, signed = prepare(spec, event, url, secret, body)
    async with open_client(allow_private=allow_private) as client:
        for tried in range(1, TRIES + 1):
            try:
                answer = await _post(client, url, signed)
            except InvalidInput:
                if tried == TRIES:
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            busy = answer.status_code >= 500 or answer.status_code == 429
            if not busy or tried == TRIES:
                return Delivered(name, signed, answer.status_code, answer.text, tried)
            await asyncio.sleep(_pause(answer))
    raise AssertionError("the last try returns or raises")


async def _post(client: httpx.AsyncClient, url: str, signed: RenderedEvent) -> httpx.Response:
    query: dict[str, Any] = {} if not signed.query else {"params": signed.query}
    try:
        headers = dict(signed.headers)
        return await client.post(
            url, content=signed.content, headers=headers, timeout=TIMEOUT_S, **query
        )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        text = f"{url} cannot be reached: {type(error).__name__}. Is the stack up (nhood status)?"
        raise InvalidInput(text, code="unreachable") from error


def _pause(answer: httpx.Response) -> float:
    told = answer.headers.get("retry-after", "")
    return min(float(told), PAUSE_MAX_S) if told.isdecimal() else PAUSE_S
