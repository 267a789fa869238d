"""Drives an action's generator: credential, network, time, attempts. Knows no vendor.

resolve the credential ─▶ attempt ─▶ outcome ─▶ again after a wait, or the end
                             │
                             └─ request ─▶ HTTP ─▶ response ─▶ the generator ─▶ request …
"""

import asyncio
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx
import orjson

from executors.core.action import call
from executors.core.outcome import (
    Outcome,
    Rejected,
    Succeeded,
    Unauthorised,
    Unavailable,
    Unknown,
    classify_failure,
)
from executors.core.request import Request, Response
from executors.core.result import Attempt, Carried, excerpt, read_attempts, waited_ms
from executors.core.retry import HELD_MAX_MS, Again, Policy, decide, longest_wait_ms
from executors.runtime.slots import Slots
from schemas.errors import DependencyDown, NeighbourhoodError
from schemas.events import RequestStep
from schemas.provider import ActionSpec, ProviderSpec
from schemas.settings import Settings
from token_vault import endpoints
from token_vault.refresher import NeedsReauth
from token_vault.tokens import Credential
from wire.calls import Calls
from wire.clock import now, now_us, rng
from wire.http import map_http_failure
from wire.redact import bytes_without
from wire.telemetry import CALL_SECONDS

REQUESTS_PER_ATTEMPT_MAX = 200  # of one action: pages, upload parts


class Tokens(Protocol):
    """What the driver needs of the vault."""

    async def resolve(
        self,
        workspace: str,
        mode: str,
        provider: str,
        user: str | None,
        connection_id: str | None = None,
    ) -> Credential:
        """Give the credential of the connection that is meant."""
        ...

    async def refreshed(self, credential: Credential) -> Credential:
        """Give a newer one."""
        ...

    def accepted(self, credential: Credential) -> None:
        """Note that the vendor took it."""
        ...


class Audit(Protocol):
    """Notes who was given a credential; the vault's `AccessLog` is one."""

    def used(
        self, given: Credential, purpose: Literal["step"], execution_id: str, step_id: str
    ) -> None:
        """Note it."""
        ...


@dataclass(slots=True)
class _Trip:
    """One step's way through its attempts.

    Attributes:
        request, response: The last ones, for the timeline; no credential is in them.
        dead: The connection that the customer has to connect again.
    """

    command: RequestStep
    spec: ProviderSpec
    action: ActionSpec
    traceparent: str | None
    params: Mapping[str, Any]
    credential: Credential | None = None
    refreshed: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    dead: str | None = None


class Driver:
    """Makes the calls of all steps of a process."""

    def __init__(
        self,
        calls: Calls,
        tokens: Tokens,
        settings: Settings,
        audit: Audit | None = None,
        stopped: Container[str] = frozenset(),
    ) -> None:
        self._calls = calls
        self._audit = audit
        self._stopped = stopped
        self._tokens = tokens
        self._settings = settings
        self._slots = Slots(settings.executor_calls)

    def unknown(self) -> Carried:
        """Give the end of a step that was begun by someone who did not live to tell."""
        now = now_us()
        message = "The call was begun and its end was not recorded; the step says not to repeat it."
        return Carried(Unknown(code="unknown", message=message), (), None, None, None, now, now)

    async def run(
        self,
        command: RequestStep,
        spec: ProviderSpec,
        action: ActionSpec,
        traceparent: str | None = None,
    ) -> Carried:
        """Carry a step out, with its retries; failures are outcomes, not exceptions.

        Where the next attempt is too far away to be waited for here, `later_ms` is set.
        """
        started = now_us()
        trip = _Trip(command, spec, action, traceparent, orjson.loads(command.params.data))
        trip.attempts.extend(read_attempts(command.attempts))
        began = trip.attempts[0].started_at_us if trip.attempts else started
        policy = Policy(
            max_attempts=command.max_attempts,
            delay_ms=command.retry_delay_ms,
            max_delay_ms=command.retry_max_delay_ms,
            repeatable=action.repeatable,
            on_unknown=command.on_unknown,
            wait_max_ms=longest_wait_ms(command, began, started),
        )
        held = 0
        later: int | None = None
        waited = waited_ms(trip.attempts, started)
        while True:
            outcome = await self._attempt(trip, waited)
            if isinstance(outcome, Unauthorised):
                instead = await self._refreshed(trip, outcome)
                if instead is None:
                    waited = 0
                    continue
                outcome = instead
            decision = decide(policy, len(trip.attempts), outcome, _roll)
            if not isinstance(decision, Again):
                break
            waited = decision.wait_ms
            held += waited
            if held > HELD_MAX_MS and command.order_key is None:
                later = waited
                break
            await asyncio.sleep(waited / 1000)
        connection = trip.credential.connection_id if trip.credential else command.connection_id
        return Carried(
            outcome,
            trip.attempts,
            trip.request,
            trip.response,
            connection,
            began,
            now_us(),
            later,
            trip.dead,
        )

    async def _attempt(self, trip: _Trip, waited_ms: int) -> Outcome:
        started = now_us()
        trip.response = None
        async with self._slots:
            outcome = await self._outcome(trip)
        took = now_us() - started
        CALL_SECONDS.labels(provider=trip.spec.slug).observe(took / 1_000_000)
        attempt = Attempt(
            number=len(trip.attempts) + 1,
            started_at_us=started,
            duration_us=took,
            status=outcome.status,
            outcome=outcome.kind,
            code=outcome.code,
            waited_ms=waited_ms,
        )
        trip.attempts.append(attempt)
        return outcome

    def _needless(self, command: RequestStep) -> Rejected | None:
        """Say why nothing is to be sent any more; None: it is."""
        if command.execution_id in self._stopped:
            message = "The execution was stopped before this attempt; nothing was sent."
            return Rejected(code="cancelled", message=message)
        if command.deadline_us is not None and now_us() >= command.deadline_us:
            message = "The step's deadline was over before this attempt; nothing was sent."
            return Rejected(code="step_deadline", message=message)
        return None

    async def _outcome(self, trip: _Trip) -> Outcome:
        command = trip.command
        needless = self._needless(command)
        if needless is not None:
            return needless
        try:
            trip.credential = await self._tokens.resolve(
                command.workspace_id,
                command.mode,
                command.provider,
                command.user,
                command.connection_id,
            )
        except NeighbourhoodError as error:
            return _no_credential(trip, error)
        if self._audit is not None:
            self._audit.used(trip.credential, "step", command.execution_id, command.step_id)
        try:
            async with asyncio.timeout(command.timeout_ms / 1000):
                return await self._drive(trip, trip.credential)
        except TimeoutError:
            text = f"no whole answer within {command.timeout_ms} ms"
            return classify_failure(trip.spec, trip.action, "may_have_arrived", text)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            sent, code, text = map_http_failure(error)
            return classify_failure(trip.spec, trip.action, sent, f"{code}: {text}")

    async def _drive(self, trip: _Trip, credential: Credential) -> Outcome:
        """Send what the generator asks for until it returns."""
        steps = call(
            trip.spec,
            trip.action,
            trip.params,
            credential.variables,
            trip.command.effect_key,
        )
        response: Response | None = None
        for _ in range(REQUESTS_PER_ATTEMPT_MAX):
            try:
                request = next(steps) if response is None else steps.send(response)
            except StopIteration as end:
                outcome: Outcome = end.value
                if isinstance(outcome, Succeeded):
                    self._tokens.accepted(credential)
                return outcome
            response = await self._send(trip, credential, request)
        steps.close()
        text = f"The action asked for more than {REQUESTS_PER_ATTEMPT_MAX} requests."
        return Rejected(code="too_many_requests_in_action", message=text)

    async def _send(self, trip: _Trip, credential: Credential, request: Request) -> Response:
        url = self._address(trip, credential, request)
        body, content_type = request.payload()
        headers = {"accept": "application/json", **request.headers}
        if content_type is not None:
            headers["content-type"] = content_type
        if trip.traceparent:
            headers["traceparent"] = trip.traceparent
        trip.request = _told(request, url)
        if request.with_token:
            headers |= credential.proof.headers(request.method, url, headers, body, now())
        answer = await self._calls.send(request.method, url, headers, body)
        received = now_us() / 1_000_000
        # A vendor may repeat the token it was given, and answers go onto the log.
        token = credential.header_value.reveal().rpartition(" ")[2]
        content = bytes_without(answer.content, (token,))
        response = Response(answer.status, answer.headers, content, received)
        trip.response = {"status": response.status, "body": excerpt(response.body)}
        return response

    def _address(self, trip: _Trip, credential: Credential, request: Request) -> str:
        """Say where the request really goes: the sandbox, an override, or the vendor."""
        spec, mode = trip.spec, trip.command.mode
        usual = spec.api.base_url.text({"connection": credential.variables}).rstrip("/")
        url = request.full_url
        if url.startswith(usual):
            base = endpoints.base_url(spec, mode, credential.variables, self._settings)
            return base + url[len(usual) :]
        return endpoints.resolve(url, spec, mode, self._settings, credential.variables)

    async def _refreshed(self, trip: _Trip, outcome: Outcome) -> Outcome | None:
        """Get a newer credential, once per step.

        Returns:
            None: there is one, try again at once. Else what the step has come to.
        """
        if trip.refreshed or trip.credential is None:
            return outcome
        trip.refreshed = True
        try:
            await self._tokens.refreshed(trip.credential)
        except (NeedsReauth, DependencyDown) as error:
            # The call was refused, so nothing has happened: the step can wait or come again.
            trip.refreshed = isinstance(error, NeedsReauth)
            return _no_credential(trip, error)
        except NeighbourhoodError:
            return outcome
        return None


def _no_credential(trip: _Trip, error: NeighbourhoodError) -> Outcome:
    if isinstance(error, NeedsReauth):
        trip.dead = error.connection_id
    made = Unavailable if isinstance(error, DependencyDown) else Rejected
    return made(code=error.code, message=error.public, detail=error.detail)


def _roll() -> float:
    return rng.random()


def _told(request: Request, url: str) -> dict[str, Any]:
    """Describe a request for the timeline: everything but the credential."""
    body: Any = request.json
    if request.form is not None:
        body = dict(request.form)
    elif request.content is not None:
        body = f"{len(request.content)} bytes"
    return {"method": request.method, "url": url, "body": excerpt(body)}
