"""The authenticated proxy: one call to a vendor, with a connection's credential.

    choose the account ─▶ address ─▶ credential ─▶ gate ─▶ send ─▶ 401? refresh, once more ─▶ back

The same credential source, limits, breakers, rules of addresses and audit as a step. Bodies are
bounded: what goes out is read whole (it may be needed twice), what comes back is passed on piece by
piece with the credential taken out of it.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from executors.core.delay import parse_delay, vendor_now
from executors.core.forward import (
    Choice,
    Pairs,
    Patterns,
    action_of,
    address,
    patterns_of,
    sent,
    shown,
)
from executors.runtime.limits import Gate, Limits
from schemas.access import Caller
from schemas.errors import DependencyDown, NeighbourhoodError, RateLimited
from schemas.provider import ProviderSpec
from token_vault import endpoints
from token_vault.tokens import Credential
from token_vault.vault import Vault
from wire.clock import now, now_us
from wire.http import ANSWER_BYTES_MAX, AnswerTooLarge, map_http_failure
from wire.redact import Scrub, without
from wire.telemetry import ACTIONS

BODY_BYTES_MAX: Final = ANSWER_BYTES_MAX
"""Of a request, and of an unpacked answer."""

GATE_WAIT_S: Final = 5.0
"""A caller who waits longer had better come again."""

HEAD_TIMEOUT_S: Final = 60.0
_TOO_MANY: Final = 429
_UNAUTHORISED: Final = 401
_SERVER_FAULT: Final = 500


class Unreachable(NeighbourhoodError):  # noqa: N818 - reads as a sentence where it is raised
    """The vendor gave no whole answer."""

    status = 502
    default_code = "provider_unreachable"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be called.

    Attributes:
        path: Percent-encoded, without a slash at the beginning.
        body: Whole; None: none.
    """

    method: str
    path: str
    choice: Choice
    headers: Pairs
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back.

    Attributes:
        headers: That may be shown.
        pieces: The body, unpacked; iterate over it to its end, or close it.
    """

    status: int
    headers: Pairs
    pieces: AsyncIterator[bytes]


class Proxy:
    """Calls vendors for callers of the API.

    Args:
        client: Of `wire.http.open_client`: it checks addresses and bounds answers.
    """

    def __init__(self, vault: Vault, limits: Limits, client: httpx.AsyncClient) -> None:
        self._vault = vault
        self._limits = limits
        self._client = client
        self._patterns: dict[str, Patterns] = {}

    async def call(self, caller: Caller, slug: str, asked: Asked) -> Answered:
        """Make one call.

        Raises:
            NotFound: No such provider or connection, or it was shut down.
            Conflict: The connection is ambiguous, or the customer has to connect again.
            InvalidInput: The path leads elsewhere.
            RateLimited: The vendor takes no more just now.
            DependencyDown: A breaker is open, or the credential cannot be had just now.
            Unreachable: The vendor gave no answer.
        """
        vault = self._vault
        spec = vault.catalogue.get(slug)
        spec.require_open(caller.mode)
        credential = await vault.tokens.resolve(
            caller.workspace_id,
            caller.mode,
            slug,
            asked.choice.user_id,
            asked.choice.connection_id,
        )
        answer = await self._send(spec, credential, asked)
        if answer.status_code == _UNAUTHORISED:
            try:
                newer = await vault.tokens.refreshed(credential)
            except NeighbourhoodError:
                pass  # there is none to be had: the vendor's own words say more than ours
            else:
                await answer.aclose()
                credential = newer
                answer = await self._send(spec, credential, asked)
        if answer.is_success:
            vault.tokens.accepted(credential)
        ACTIONS.labels(provider=slug, action="proxy", status=f"{answer.status_code // 100}xx").inc()
        return _answered(answer, credential)

    async def _send(
        self, spec: ProviderSpec, credential: Credential, asked: Asked
    ) -> httpx.Response:
        settings = self._vault.settings
        base = endpoints.base_url(spec, credential.mode, credential.variables, settings)
        url = address(base, asked.path, asked.choice.query)
        headers = sent(asked.headers)
        headers |= credential.proof.headers(asked.method, url, headers, asked.body, now())
        gate = self._limits.gate(spec, self._action(spec, asked), credential)
        await _pass(gate, spec)
        self._vault.audit.used(credential, "proxy")
        whole = credential.proof.url(url)
        request = self._client.build_request(
            asked.method, whole, headers=headers, content=asked.body
        )
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                answer = await self._client.send(request, stream=True)
        except (httpx.TransportError, httpx.InvalidURL, TimeoutError) as error:
            gate.failed()
            raise _unreachable(spec, error) from error
        except BaseException:
            gate.cancelled()
            raise
        _tell(gate, answer)
        declared = answer.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > BODY_BYTES_MAX:
            await answer.aclose()
            raise _too_large(spec)
        return answer

    def _action(self, spec: ProviderSpec, asked: Asked) -> str:
        patterns = self._patterns.get(spec.slug)
        if patterns is None:
            patterns = self._patterns[spec.slug] = patterns_of(spec)
        return action_of(patterns, asked.method, asked.path)


async def _pass(gate: Gate, spec: ProviderSpec) -> None:
    """Pass the gate, or say when to come again."""
    if gate.passes() or await gate.wait(GATE_WAIT_S):
        return
    seconds = max(math.ceil(gate.seconds()), 1)
    if gate.is_broken():
        raise DependencyDown(
            f"{spec.name} does not answer at the moment; it is asked again in about {seconds} s.",
            code="provider_unavailable",
        )
    raise RateLimited(
        f"{spec.name} takes no more calls with this connection for about {seconds} s.",
        retry_after_s=seconds,
        code="provider_throttled",
    )


def _tell(gate: Gate, answer: httpx.Response) -> None:
    """Let steps and other calls know what the vendor says of its limits and of itself."""
    received = now_us() / 1_000_000
    headers: Mapping[str, str] = answer.headers
    gate.learn(headers, received)
    if answer.status_code == _TOO_MANY:
        told = headers.get("retry-after")
        delay = None if told is None else parse_delay(told, "auto", vendor_now(headers, received))
        gate.throttled(delay)
    elif answer.status_code >= _SERVER_FAULT:
        gate.failed()
    else:
        gate.answered()


def _answered(answer: httpx.Response, credential: Credential) -> Answered:
    token = credential.header_value.reveal().rpartition(" ")[2]
    headers = [
        (name, without(value, (token,))) for name, value in shown(answer.headers.multi_items())
    ]
    return Answered(answer.status_code, headers, _pieces(answer, Scrub((token,))))


async def _pieces(answer: httpx.Response, scrub: Scrub) -> AsyncIterator[bytes]:
    """Pass the body on; an answer that is too large or breaks off ends without its end."""
    try:
        async for piece in answer.aiter_raw():
            ready = scrub.feed(piece)
            if ready:
                yield ready
        rest = scrub.rest()
        if rest:
            yield rest
    finally:
        await answer.aclose()


def _unreachable(spec: ProviderSpec, error: Exception) -> NeighbourhoodError:
    if isinstance(error, AnswerTooLarge):
        return _too_large(spec)
    if isinstance(error, TimeoutError):
        code, text = "provider_timeout", f"no answer within {HEAD_TIMEOUT_S:.0f} s"
    else:
        _, code, text = map_http_failure(error)
    return Unreachable(f"{spec.name} gave no answer ({code}).", detail=text)


def _too_large(spec: ProviderSpec) -> Unreachable:
    return Unreachable(
        f"{spec.name}'s answer is larger than {BODY_BYTES_MAX} bytes.", code="answer_too_large"
    )
