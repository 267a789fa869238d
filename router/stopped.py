"""Tells the executors which executions were stopped: what is queued for them is not called."""

from schemas import codec
from schemas.events import CancelRequested, Envelope
from schemas.topics import CANCELLATIONS
from wire.bus import Record


def stopped(request: CancelRequested) -> Record:
    """Build the record that every executor reads.

    The router writes it, with the mark by which it ignores later results: so there is no execution
    that one of the two believes to be stopped and the other does not.
    """
    name = request.execution_id
    envelope = Envelope(
        f"{name}/stopped",
        "nhood.execution.stopped",
        "/router",
        request.workspace_id,
        request.requested_at_us,
        subject=name,
    )
    return Record(CANCELLATIONS, name.encode(), codec.encode(request), envelope.headers())
