"""Counts ingest's answers and how long they took."""

from functools import lru_cache

from prometheus_client import Counter

from wire.telemetry import INGEST_REQUESTS, INGEST_SECONDS

US_PER_S = 1_000_000


def answered(route: str, status: int, took_us: int) -> None:
    """Note an answer.

    Args:
        route: `webhooks` or `events`.
        status: HTTP status.
        took_us: From the request's head to the answer, in microseconds.
    """
    _count(route, status).inc()
    INGEST_SECONDS.labels(route).observe(took_us / US_PER_S)


@lru_cache(maxsize=256)
def _count(route: str, status: int) -> Counter:
    return INGEST_REQUESTS.labels(route, str(status))
