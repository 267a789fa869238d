"""Looks for what vendors do not tell, and puts it onto the log as their webhooks would.

due row ─▶ the provider's own action, through limits and vault ─▶ new items ─▶ Kafka's ack ─▶ row

What dies before the row is moved on looks again in the same turn: its events get the same ids, and
the router takes each once.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson
import structlog

from executors.core.outcome import Outcome, Succeeded
from executors.core.poll import Item, Question, State, asked, looked, started
from executors.core.result import Carried
from executors.runtime.poll_rows import PollRow, PollRows
from schemas import codec
from schemas.errors import NeighbourhoodError
from schemas.events import PROVIDER_NOTE, TYPE_PROVIDER, Envelope, Event, Payload, RequestStep
from schemas.ids import derived_id
from schemas.incoming import EVENT_BYTES_MAX
from schemas.polling import PollSpec, poll_of
from schemas.provider import ActionSpec, Catalogue, ProviderSpec
from schemas.topics import EVENTS
from wire.bus import Publisher, Record, publish_all
from wire.clock import now, now_us
from wire.telemetry import POLLED_EVENTS, POLLS

# Looks under way in a process.
TASKS_MAX: Final = 16
LOOK_EVERY_S: Final = 2.0
POLL_NOTE: Final = "nhood-poll"
_TIMEOUT_MS: Final = 60_000
_US_PER_MS: Final = 1_000
_log = structlog.get_logger("polls")


class Runs(Protocol):
    """Carries an action out (`executors.runtime.driver.Driver`)."""

    async def run(self, command: RequestStep, spec: ProviderSpec, action: ActionSpec) -> Carried:
        """Give how it ended."""
        ...


class _Failed(Exception):  # noqa: N818 - is no error of a program
    """A look that did not come to its end."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


class Polling:
    """Takes turns in looking; one a process.

    Args:
        rows: Where each poll stands.
        catalogue: Of the providers.
        driver: Makes the calls.
        publisher: Of events.
        providers: Slugs of those that this process serves.
    """

    def __init__(
        self,
        rows: PollRows,
        catalogue: Catalogue,
        driver: Runs,
        publisher: Publisher,
        providers: Sequence[str],
    ) -> None:
        self._rows = rows
        self._catalogue = catalogue
        self._driver = driver
        self._publisher = publisher
        self._providers = [slug for slug in providers if catalogue.get(slug).polls]

    async def turn(self) -> bool:
        """Look wherever it is time; say whether there is more to do at once.

        Raises:
            DependencyDown: The database is away.
        """
        due = await self._rows.lease(self._providers, TASKS_MAX)
        await asyncio.gather(*(self._look(row) for row in due))
        return len(due) == TASKS_MAX

    async def _look(self, row: PollRow) -> None:
        outcome = "looked"
        try:
            await self._looked(row)
        except _Failed as failure:
            outcome = await self._told(row, failure.outcome)
        except NeighbourhoodError as error:
            outcome = "failed"
            await self._rows.failed(row, error.code, error.public, None)
        POLLS.labels(provider=row.provider, outcome=outcome).inc()

    async def _looked(self, row: PollRow) -> None:
        spec = self._catalogue.get(row.provider)
        poll = poll_of(spec, row.event)
        state = None if row.state is None else State.read(row.state)
        question = asked(poll, row.params, state, now())
        output = await self._ask(row, spec, question)
        if question.starts:
            await self._rows.moved(row, started(poll, output).written(), 0, again=False)
            return
        found = looked(poll, state, output, now())
        await publish_all(self._publisher, [_record(row, item) for item in found.items])
        await self._rows.moved(row, found.state.written(), len(found.items), again=found.more)
        POLLED_EVENTS.labels(provider=row.provider).inc(len(found.items))

    async def _ask(self, row: PollRow, spec: ProviderSpec, question: Question) -> Any:  # noqa: ANN401 - JSON values
        action = spec.action(question.action)
        carried = await self._driver.run(_command(row, question), spec, action)
        if not isinstance(carried.outcome, Succeeded):
            raise _Failed(carried.outcome)
        return carried.outcome.output

    async def _told(self, row: PollRow, outcome: Outcome) -> str:
        """Note a vendor's refusal, or begin anew where it knows the place no more."""
        poll: PollSpec = poll_of(self._catalogue.get(row.provider), row.event)
        if outcome.code in poll.expired and row.state is not None:
            _log.warning("poll.missed", poll=row.id, provider=row.provider, code=outcome.code)
            await self._rows.restarted(row)
            return "expired"
        await self._rows.failed(row, outcome.code, outcome.message, outcome.retry_after_s)
        return "failed"


def _command(row: PollRow, question: Question) -> RequestStep:
    """Dress a look as a step, which is what the driver carries out; the next look is its retry."""
    moment = now_us()
    return RequestStep(
        workspace_id=row.workspace_id,
        execution_id=row.id,
        workflow_id="",
        version=0,
        step_id=row.event,
        loop_index=-1,
        effect_key=derived_id("ev", row.id, row.turn),
        provider=row.provider,
        action=question.action,
        params=Payload(orjson.dumps(question.params), "application/json"),
        mode=row.mode,
        user=row.user,
        connection_id=row.connection_id,
        order_key=None,
        max_attempts=1,
        retry_delay_ms=0,
        retry_max_delay_ms=0,
        timeout_ms=_TIMEOUT_MS,
        on_unknown="fail",
        state=Payload(b"{}", "application/json"),
        requested_at_us=moment,
        deadline_us=moment + 2 * _TIMEOUT_MS * _US_PER_MS,
    )


def _record(row: PollRow, item: Item) -> Record:
    """Write an item as the event of a webhook; the recipe of its id must never change."""
    content = orjson.dumps(item.value)
    if len(content) > EVENT_BYTES_MAX:
        text = f"The item has {len(content)} bytes; an event has up to {EVENT_BYTES_MAX}."
        content = orjson.dumps({"id": item.id, "left_out": text})
    envelope = Envelope(
        id=derived_id("ev", row.id, row.turn, item.id),
        type=TYPE_PROVIDER,
        source=f"/providers/{row.provider}",
        workspace=row.workspace_id,
        time_us=now_us(),
        subject=f"{row.provider}/{row.event}",
    )
    event = Event(
        data=Payload(content, "application/json"),
        user=row.user,
        mode=row.mode,
        headers={PROVIDER_NOTE: row.provider, POLL_NOTE: row.id},
    )
    key = f"{row.workspace_id}/{row.provider}/{row.id}"
    return Record(EVENTS, key.encode(), codec.encode(event), envelope.headers())
