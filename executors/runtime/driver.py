"""Drives an action's generator: credential, limits, network, time, attempts. Knows no vendor.

resolve the credential ─▶ gate ─▶ attempt ─▶ outcome ─▶ again after a wait, or the end
                                     │
                                     └─ request ─▶ HTTP ─▶ response ─▶ the generator ─▶ request …

Whoever waits (at the gate, for a retry) gives its turn to others meanwhile. A gate makes a step
wait until its own deadline, and does not use up its attempts.
"""

import asyncio
from collections.abc import Awaitable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import httpx
import orjson

from executors.core.action import call
from executors.core.check import call_checked
from executors.core.outcome import (
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unauthorised,
    Unavailable,
    Unknown,
    classify_failure,
)
from executors.core.request import Request, Response
from executors.core.result import Attempt, Carried, excerpt, read_attempts, told, waited_ms
from executors.core.retry import (
    HELD_MAX_MS,
    TOTAL_MAX_MS,
    Again,
    Policy,
    decide,
    longest_wait_ms,
)
from executors.runtime.files import StepFiles
from executors.runtime.limits import Gate, Limits
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
Waited = TypeVar("Waited")


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


class Turn(Protocol):
    """The right to call (`executors.runtime.dispatch.Turn`)."""

    begun: bool

    async def without(self, wait: Awaitable[Waited]) -> Waited:
        """Give it to others while waiting."""
        ...


@dataclass(slots=True)
class Permit:
    """The right to make the first call of a step, from the gate.

    Attributes:
        waited_ms: How long it took to get.
    """

    gate: Gate
    waited_ms: int

    def give_back(self) -> None:
        """There is nothing to call after all."""
        self.gate.cancelled(sent=False)


@dataclass(slots=True)
class _Trip:
    """One step's way through its attempts.

    Attributes:
        permit: For the first attempt, where it is there already.
        gate: Where the attempt under way passed; None: it did not come so far.
        timeout: Of the attempt under way.
        gate_wait_ms: How long it waited at the gate.
        request, response: The last ones, for the timeline; no credential is in them.
        dead: The connection that the customer has to connect again.
        unsure: Nobody knows whether it was done, and the step wants to have that looked up.
    """

    command: RequestStep
    spec: ProviderSpec
    action: ActionSpec
    traceparent: str | None
    params: Mapping[str, Any]
    turn: Turn | None = None
    permit: Permit | None = None
    gate: Gate | None = None
    timeout: asyncio.Timeout | None = None
    gate_wait_ms: int = 0
    credential: Credential | None = None
    refreshed: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    dead: str | None = None
    unsure: bool = False


class Driver:
    """Makes the calls of all steps of a process."""

    def __init__(  # noqa: PLR0913 - the composition root hands everything over
        self,
        calls: Calls,
        tokens: Tokens,
        settings: Settings,
        audit: Audit | None = None,
        stopped: Container[str] = frozenset(),
        limits: Limits | None = None,
        files: StepFiles | None = None,
    ) -> None:
        self._files = files
        self._calls = calls
        self._limits = limits or Limits(settings)
        self._audit = audit
        self._stopped = stopped
        self._tokens = tokens
        self._settings = settings

    def unknown(self) -> Carried:
        """Give the end of a step that was begun by someone who did not live to tell."""
        now = now_us()
        message = "The call was begun and its end was not recorded; the step says not to repeat it."
        return Carried(Unknown(code="unknown", message=message), (), None, None, None, now, now)

    async def admit(
        self, command: RequestStep, spec: ProviderSpec, action: ActionSpec, turn: Turn | None
    ) -> Permit | None:
        """Wait until a step may make its first call, before it is noted as begun.

        A step that waits here (for a rate, a breaker) can be left at any time: nobody has to ask
        whether its call was made. None where there is no gate; `run` will say why.
        """
        try:
            credential = await self._resolve(command)
            gate = self._limits.gate(spec, action.id, credential)
        except NeighbourhoodError:
            return None
        return await self._pass(command, gate, turn)

    async def _pass(self, command: RequestStep, gate: Gate, turn: Turn | None) -> Permit | None:
        """Pass a gate; None where the step's time was up before."""
        if gate.passes():
            return Permit(gate, 0)
        before = now_us()
        passed = await aside(turn, gate.wait(_left_s(command)))
        return Permit(gate, (now_us() - before) // 1_000) if passed else None

    async def run(  # noqa: PLR0913 - what there is to know of a step
        self,
        command: RequestStep,
        spec: ProviderSpec,
        action: ActionSpec,
        traceparent: str | None = None,
        turn: Turn | None = None,
        permit: Permit | None = None,
        *,
        begun: bool = False,
    ) -> Carried:
        """Carry a step out, with its retries; failures are outcomes, not exceptions.

        Where the next attempt is too far away to be waited for here, `later_ms` is set.

        Args:
            command: What to do.
            spec: Its provider.
            action: Its action.
            traceparent: W3C's, for the vendor.
            turn: Held by the caller; given to others while the step waits.
            permit: From `admit`.
            begun: Somebody began the call and did not live to tell.
        """
        started, params = now_us(), orjson.loads(command.params.data)
        trip = _Trip(command, spec, action, traceparent, params, turn, permit)
        trip.attempts.extend(read_attempts(command.attempts))
        checked = checks(action, command)
        trip.unsure = checked and (begun or any(a.outcome == "unknown" for a in trip.attempts))
        began = trip.attempts[0].started_at_us if trip.attempts else started
        policy = Policy(
            max_attempts=command.max_attempts,
            delay_ms=command.retry_delay_ms,
            max_delay_ms=command.retry_max_delay_ms,
            repeatable=action.repeatable,
            on_unknown="retry" if checked else command.on_unknown,
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
            trip.unsure = trip.unsure or (checked and isinstance(outcome, Unknown))
            decision = decide(policy, len(trip.attempts), outcome, _roll)
            if not isinstance(decision, Again):
                break
            waited = decision.wait_ms
            held += waited
            if held > HELD_MAX_MS and command.order_key is None:
                later = waited
                break
            await aside(turn, asyncio.sleep(waited / 1000))
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
        trip.response = None
        trip.gate_wait_ms = 0
        refused = await self._ready(trip)
        started = now_us()
        outcome = refused or await self._outcome(trip)
        took = now_us() - started
        CALL_SECONDS.labels(provider=trip.spec.slug).observe(took / 1_000_000)
        attempt = Attempt(
            number=len(trip.attempts) + 1,
            started_at_us=started,
            duration_us=took,
            status=outcome.status,
            outcome=outcome.kind,
            code=outcome.code,
            waited_ms=waited_ms + trip.gate_wait_ms,
        )
        trip.attempts.append(attempt)
        return outcome

    async def _ready(self, trip: _Trip) -> Outcome | None:
        """Get the credential and pass the gate; an outcome where that cannot or need not be."""
        permit, trip.permit, trip.gate = trip.permit, None, None
        command = trip.command
        outcome: Outcome | None
        try:
            trip.credential = await self._resolve(command)
            if permit is None:
                gate = self._limits.gate(trip.spec, trip.action.id, trip.credential)
                permit = await self._pass(command, gate, trip.turn)
                if permit is None:
                    return self._needless(command) or _late(trip.spec)
                if permit.waited_ms:  # it may have changed meanwhile
                    trip.credential = await self._resolve(command)
            outcome = self._needless(command)
        except NeighbourhoodError as error:
            outcome = self._needless(command) or _no_credential(trip, error)
        if outcome is None and permit is not None:
            trip.gate, trip.gate_wait_ms = permit.gate, permit.waited_ms
        elif permit is not None:
            permit.give_back()
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

    async def _resolve(self, command: RequestStep) -> Credential:
        return await self._tokens.resolve(
            command.workspace_id,
            command.mode,
            command.provider,
            command.user,
            command.connection_id,
        )

    async def _outcome(self, trip: _Trip) -> Outcome:
        """Make the calls of one attempt and tell the gate how it ended."""
        assert trip.credential is not None  # noqa: S101 - for the type checker
        assert trip.gate is not None  # noqa: S101 - for the type checker
        if self._audit is not None:
            command = trip.command
            self._audit.used(trip.credential, "step", command.execution_id, command.step_id)
        trip.request = None
        try:
            outcome = await self._timed(trip, trip.credential)
        except BaseException:
            trip.gate.cancelled()
            raise
        if trip.request is None:
            trip.gate.cancelled(sent=False)
        else:
            trip.gate.ended(outcome)
        return outcome

    async def _timed(self, trip: _Trip, credential: Credential) -> Outcome:
        command = trip.command
        try:
            async with asyncio.timeout(command.timeout_ms / 1000) as trip.timeout:
                return await self._drive(trip, credential)
        except NeighbourhoodError as error:  # of the file store; the vendor had no say in it
            made = Unavailable if isinstance(error, DependencyDown) else Rejected
            return made(code=error.code, message=error.public, detail=error.detail)
        except TimeoutError:
            text = f"no whole answer within {command.timeout_ms} ms"
            return classify_failure(trip.spec, trip.action, "may_have_arrived", text)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            sent, code, text = map_http_failure(error)
            return classify_failure(trip.spec, trip.action, sent, f"{code}: {text}")

    async def _drive(self, trip: _Trip, credential: Credential) -> Outcome:
        """Send what the generator asks for until it returns."""
        params = trip.params
        if self._files is not None and trip.action.files:
            params = await self._files.known(trip.command, trip.action, params)
        steps = (call_checked if trip.unsure else call)(
            trip.spec,
            trip.action,
            params,
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
            if response is not None:
                await self._pass_again(trip)
            response = await self._send(trip, credential, request)
        steps.close()
        text = f"The action asked for more than {REQUESTS_PER_ATTEMPT_MAX} requests."
        return Rejected(code="too_many_requests_in_action", message=text)

    async def _pass_again(self, trip: _Trip) -> None:
        """Pass the gate with a further request; the attempt's time stands still meanwhile."""
        gate, timeout = trip.gate, trip.timeout
        if gate is None or timeout is None or gate.passes(first=False):
            return
        clock = asyncio.get_running_loop().time
        left = (timeout.when() or clock()) - clock()
        timeout.reschedule(None)
        if not await aside(trip.turn, gate.wait(_left_s(trip.command), first=False)):
            raise TimeoutError
        timeout.reschedule(clock() + left)

    async def _send(self, trip: _Trip, credential: Credential, request: Request) -> Response:
        url = self._address(trip, credential, request)
        body, content_type = request.payload()
        kind = "*/*" if request.download else "application/json"
        headers = {"accept": kind, **request.headers}
        if content_type is not None:
            headers["content-type"] = content_type
        if trip.traceparent:
            headers["traceparent"] = trip.traceparent
        trip.request = told(request, url)
        if request.with_token:
            headers |= credential.proof.headers(
                request.method, url, headers, body, now(), request.proof
            )
            url = credential.proof.url(url)
        if self._files is not None and (request.upload is not None or request.download):
            answer = await self._files.send(self._calls, trip.command, request, url, headers)
        else:
            answer = await self._calls.send(request.method, url, headers, body)
        received = now_us() / 1_000_000
        # A vendor may repeat the token it was given, and answers go onto the log.
        token = credential.proof.carried(request.proof).reveal().rpartition(" ")[2]
        content = bytes_without(answer.content, (token,))
        response = Response(answer.status, answer.headers, content, received)
        if trip.gate is not None:
            trip.gate.learn(response.headers, received)
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


async def aside(turn: Turn | None, wait: Awaitable[Waited]) -> Waited:
    """Wait without a turn."""
    return await (wait if turn is None else turn.without(wait))


def _left_s(command: RequestStep) -> float:
    """Say how long a step may wait at a gate, in seconds: until its deadline, else its age."""
    ends_us = command.requested_at_us + TOTAL_MAX_MS * 1_000
    if command.deadline_us is not None:
        ends_us = min(ends_us, command.deadline_us)
    return (ends_us - now_us()) / 1_000_000


def _late(spec: ProviderSpec) -> Throttled:
    message = f"{spec.name} took no further call of this account until the step's time was up."
    return Throttled(code="waited_too_long", message=message)


def checks(action: ActionSpec, command: RequestStep) -> bool:
    """Say whether a step looks its effect up before a call that may be a repeat."""
    return command.on_unknown == "check" and action.check is not None


def _roll() -> float:
    return rng.random()
