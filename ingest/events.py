"""`POST /api/v1/workspaces/{ws}/events`: up to 1,000 events a call, with a result for each.

202 all were taken    207 some were    422 none could be used    503 Kafka took none: try again
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ingest.answers import CLIENT_CLOSED, refusal
from ingest.body import Gone, header_texts, read_body
from ingest.core.batch import CALL_BYTES_MAX, Item, Refused, Sender, Understood, read_batch
from ingest.metrics import answered
from ingest.pace import Admit, everybody
from ingest.webhooks import event_record, receipt
from schemas.access import Authenticate
from schemas.errors import DependencyDown, NeighbourhoodError
from schemas.events import Place
from wire.bus import Publisher

_ACCEPTED = 202
_MIXED = 207
_UNUSABLE = 422

Answer = Place | NeighbourhoodError


class Events:
    """Takes events from the developer's own programs."""

    def __init__(
        self,
        publisher: Publisher,
        authenticate: Authenticate,
        clock: Callable[[], int],
        mint: Callable[[str], str],
        admit: Admit = everybody,
    ) -> None:
        self._admit = admit
        self._publisher = publisher
        self._authenticate = authenticate
        self._clock = clock
        self._mint = mint

    async def post(self, request: Request) -> Response:
        """Take one call."""
        started_us = self._clock()
        try:
            response = await self._take(request)
        except Gone:
            return Response(status_code=CLIENT_CLOSED)
        except NeighbourhoodError as error:
            response = refusal(error)
        answered("events", response.status_code, self._clock() - started_us)
        return response

    async def _take(self, request: Request) -> Response:
        headers = header_texts(request)
        caller = await self._authenticate(request.scope)
        workspace = caller.require(request.path_params["workspace_id"])
        body = await read_body(request, headers, CALL_BYTES_MAX)
        now_us = self._clock()
        sender = Sender(workspace, caller.mode, lambda: self._mint("ev"), now_us)
        items = read_batch(body, headers.get("content-type", ""), sender)
        good = sum(isinstance(item, Understood) for item in items)
        if good:
            await self._admit(workspace, good)
        answers = await self._publish(items)
        results = [_result(*pair, now_us) for pair in zip(items, answers, strict=True)]
        return _overall(results, answers)

    async def _publish(self, items: Sequence[Item]) -> list[Answer | None]:
        """Write what can be written; an answer for each item, None where it was refused."""
        records = [
            event_record(item.envelope, item.event, item.key)
            for item in items
            if isinstance(item, Understood)
        ]
        answers = iter(await self._publisher.publish(records))
        return [next(answers) if isinstance(item, Understood) else None for item in items]


def _result(item: Item, reply: Answer | None, now_us: int) -> dict[str, Any]:
    if isinstance(item, Refused):
        problem = item.problems[0]
        return {
            "status": _UNUSABLE,
            "code": problem.code,
            "detail": f"{problem.place}: {problem.message}",
            "problems": [asdict(found) for found in item.problems],
        }
    if isinstance(reply, Place):
        return {"status": _ACCEPTED, **receipt(item.envelope, reply, now_us)}
    error = reply or DependencyDown("Kafka said nothing of this event.")
    return {"status": error.status, "code": error.code, "detail": error.public}


def _overall(results: Sequence[dict[str, Any]], answers: Sequence[Answer | None]) -> Response:
    accepted = sum(result["status"] == _ACCEPTED for result in results)
    down = next((error for error in answers if isinstance(error, DependencyDown)), None)
    if accepted == 0 and down is not None:
        return refusal(down)
    status = _MIXED
    if accepted == len(results):
        status = _ACCEPTED
    elif accepted == 0:
        status = _UNUSABLE
    body = {"accepted": accepted, "refused": len(results) - accepted, "results": results}
    return Response(orjson.dumps(body), status, media_type="application/json")
