"""Builds the records of timers: whoever wants something published later writes one."""

from schemas import codec
from schemas.events import Envelope, Timer
from schemas.topics import TIMERS
from wire.bus import Record

DUE_HEADER = "due"  # the time, so that nobody has to decode a timer before it is due


def timer_record(key: str, timer: Timer) -> Record:
    """Build the record that sets a timer."""
    envelope = Envelope(key, "nhood.timer", "/timers", timer.workspace_id, timer.at_us)
    headers = [*envelope.headers(), (DUE_HEADER, str(timer.due_us).encode())]
    return Record(TIMERS, key.encode(), codec.encode(timer), headers)


def publish_at(due_us: int, record: Record, key: str, workspace: str, now_us: int) -> Record:
    """Build the timer that publishes a record at a time."""
    headers = dict(record.headers)
    timer = Timer(workspace, due_us, record.topic, record.key, record.value, headers, now_us)
    return timer_record(key, timer)


def end_of(key: str) -> Record:
    """Build the tombstone that ends a timer."""
    return Record(TIMERS, key.encode(), None)
