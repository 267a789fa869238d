"""Hands the router's core to the job that carries replays out (`control.replay_job.Engine`)."""

from collections.abc import Mapping
from typing import Any

import orjson

from router.core.match import body_value
from router.core.rehearsal import rehearse
from schemas.events import ReplayRequested
from schemas.plan import Plan


class RouterCore:
    """The engine."""

    def input_of(self, data: bytes, content_type: str) -> bytes:
        """Give an event's body as workflows read it, as JSON; ValueError where it is none."""
        return orjson.dumps(body_value(data, content_type), option=orjson.OPT_NON_STR_KEYS)

    def rehearse(
        self,
        plan: Plan,
        request: ReplayRequested,
        recorded: Mapping[str, Mapping[str, Any]],
        again: frozenset[str],
    ) -> dict[str, Any]:
        """Say what a replay would do."""
        return rehearse(plan, request, recorded, again)
