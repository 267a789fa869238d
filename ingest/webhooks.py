"""`POST /webhooks/{workspace_id}/{path}`: the hot path, answered once the broker has the event.

    body → size → workspace → signature → event → Kafka's ack → 202 with a receipt

    401 the signature does not hold, or is missing where it must be    413 over 1 MiB
    400 the request cannot be understood   404 no such workspace       503 Kafka is away: try again

A path on which nothing listens is taken as well: its event gets the outcome `no_match`, which is
kept where the developer looks for it, while a sender would throw a 404 away.
"""

from collections.abc import Callable, Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ingest.answers import CLIENT_CLOSED, refusal, unsigned
from ingest.body import Gone, header_texts, read_body
from ingest.core.normalise import Delivery, choose_mode, read_webhook
from ingest.core.normalise import Request as WebhookRequest
from ingest.core.signature import Absent, Invalid, Valid, Verdict, verify
from ingest.definitions import Definitions, Hook, modes, must_be_signed
from ingest.directory import Directory
from ingest.metrics import answered
from ingest.pace import Admit, everybody
from schemas.codec import encode
from schemas.errors import NeighbourhoodError
from schemas.events import Envelope, Event, Place, rfc3339
from schemas.incoming import EVENT_BYTES_MAX
from schemas.topics import EVENTS
from wire.bus import Publisher, Record, publish_all
from wire.problems import problem

US_PER_S = 1_000_000


def event_record(envelope: Envelope, event: Event, key: str) -> Record:
    """Give the record of an event."""
    return Record(EVENTS, key.encode(), encode(event), envelope.headers())


def receipt(envelope: Envelope, place: Place, accepted_us: int) -> dict[str, object]:
    """Give the receipt of an accepted event: where it stands in Kafka."""
    return {
        "event_id": envelope.id,
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "accepted_at": rfc3339(accepted_us),
    }


class Webhooks:
    """Takes webhooks."""

    def __init__(
        self,
        publisher: Publisher,
        directory: Directory,
        definitions: Definitions,
        clock: Callable[[], int],
        mint: Callable[[str], str],
        admit: Admit = everybody,
    ) -> None:
        self._admit = admit
        self._publisher = publisher
        self._directory = directory
        self._definitions = definitions
        self._clock = clock
        self._mint = mint

    async def post(self, request: Request) -> Response:
        """Take one webhook."""
        started_us = self._clock()
        try:
            response = await self._take(request)
        except Gone:
            return Response(status_code=CLIENT_CLOSED)
        except NeighbourhoodError as error:
            response = refusal(error)
        answered("webhooks", response.status_code, self._clock() - started_us)
        return response

    async def _take(self, request: Request) -> Response:
        headers = header_texts(request)
        workspace = request.path_params["workspace_id"]
        body = await read_body(request, headers, EVENT_BYTES_MAX)
        keys = await self._directory.keys(workspace)
        query = request.scope["query_string"].decode("latin-1")
        path = request.path_params["path"]
        delivery = read_webhook(
            WebhookRequest(workspace, path, request.method, query, headers, body)
        )
        verdict = await self._verify(workspace, keys, delivery)
        if isinstance(verdict, Invalid):
            return unsigned(verdict.code, verdict.reason)
        hooks = await self._listeners(workspace, delivery.path)
        mode = choose_mode(delivery.asked_mode, modes(hooks))
        if isinstance(verdict, Absent) and must_be_signed(hooks, mode):
            return unsigned(
                "signature_required",
                "A workflow on this path takes signed posts only: send webhook-id, "
                "webhook-timestamp and webhook-signature (https://www.standardwebhooks.com).",
            )
        await self._admit(workspace, 1)
        return await self._publish(delivery, mode, signed=isinstance(verdict, Valid))

    async def _verify(self, workspace: str, keys: tuple[bytes, ...], delivery: Delivery) -> Verdict:
        headers, body = delivery.request.headers, delivery.request.body
        now_s = self._clock() // US_PER_S
        verdict = verify(keys, headers, body, now_s)
        if isinstance(verdict, Invalid) and verdict.code == "wrong_signature":
            fresh = await self._directory.keys(workspace, fresh=True)
            if fresh != keys:
                verdict = verify(fresh, headers, body, now_s)
        return verdict

    async def _listeners(self, workspace: str, path: str) -> Sequence[Hook]:
        """Give who listens; where nobody seems to, the log may have somebody newer."""
        hooks = self._definitions.on_path(workspace, path)
        if not hooks:
            await self._definitions.refresh()
            hooks = self._definitions.on_path(workspace, path)
        return hooks

    async def _publish(self, delivery: Delivery, mode: str, *, signed: bool) -> Response:
        now_us = self._clock()
        envelope, event, key = delivery.event(
            mode, signed=signed, new_id=self._mint("ev"), now_us=now_us
        )
        (place,) = await publish_all(self._publisher, [event_record(envelope, event, key)])
        return Response(
            orjson.dumps(receipt(envelope, place, now_us)), 202, media_type="application/json"
        )


async def wrong_method(request: Request) -> Response:
    """Tell whoever opens a webhook's address in a browser what it is for."""
    return problem(
        405,
        "method_not_allowed",
        f"This address takes webhooks: send a POST instead of a {request.method}, for instance "
        'curl -X POST -H \'content-type: application/json\' -d \'{"customer": {"name": "Ada"}}\'.',
        headers={"Allow": "POST"},
    )
