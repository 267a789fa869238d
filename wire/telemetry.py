"""Logs, metrics and the three addresses every stage answers: /healthz, /readyz, /metrics."""

import logging
import sys
import threading
from collections.abc import Callable, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

_SECRETS = frozenset(
    (
        *("token", "access_token", "refresh_token", "secret", "client_secret", "authorization"),
        *("password", "api_key", "code", "cookie", "webhook_secret", "verifier"),
    )
)

ACTIONS = Counter(
    "integration_action",
    "Steps carried out, by how they ended.",
    ["provider", "action", "status"],
)
INGEST_REQUESTS = Counter(
    "nhood_ingest_requests", "Requests to ingest, by answer.", ["route", "status"]
)
INGEST_SECONDS = Histogram(
    "nhood_ingest_request_seconds",
    "Time to the answer, the broker's acknowledgement included.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5),
)
CALL_SECONDS = Histogram(
    "nhood_executor_call_seconds", "Time of one call to a vendor.", ["provider"]
)
LAG = Gauge("nhood_consumer_lag_records", "Records not yet committed.", ["stage", "topic"])
OLDEST_UNFINISHED = Gauge(
    "nhood_executor_oldest_unfinished_seconds", "Age of the oldest step under way."
)
TIMERS_PENDING = Gauge("nhood_router_timers_pending", "Timers of this router's partitions.")
TIMERS_LATE = Histogram(
    "nhood_router_timer_late_seconds",
    "How long after its time a timer was published.",
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 5, 30, 300),
)
STEPS_WAITING = Gauge("nhood_executor_waiting_steps", "Steps in memory that hold no turn.")
STEPS_PUT_OFF = Gauge(
    "nhood_executor_put_off_steps", "Steps that had no room: read from the log again later."
)
LIMIT_WAITS = Counter(
    "nhood_limit_waits", "Calls that had to wait for a rate or a breaker.", ["provider", "reason"]
)
BREAKERS_OPEN = Gauge(
    "nhood_breakers_open", "Breakers that are open or half open.", ["provider", "level"]
)
BREAKER_CHANGES = Counter(
    "nhood_breaker_changes", "Changes of breakers' states.", ["provider", "level", "state"]
)
POLLS = Counter("nhood_polls", "Looks at vendors, by how they ended.", ["provider", "outcome"])
POLLED_EVENTS = Counter("nhood_polled_events", "Events that looks found.", ["provider"])
ROUTER_EVENTS = Counter("nhood_router_events", "Events handled, by outcome.", ["outcome"])
DEADLETTERS = Counter(
    "nhood_deadletter", "Records sent to the dead-letter topic.", ["stage", "reason"]
)
DELETED_UNREAD = Counter(
    "nhood_records_deleted_unread",
    "Records that retention deleted before a stage had read them.",
    ["stage", "topic"],
)
AUDIT_LOST = Counter(
    "nhood_vault_audit_lost", "Uses of credentials that no audit row tells, the database was away."
)


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank out every field whose name says that it is a secret; a structlog processor."""
    for name in event:
        if name.lower() in _SECRETS:
            event[name] = "***"
    return event


def configure_logging(stage: str, level: str) -> None:
    """Write JSON lines to stderr: time, level, event name, fields."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(stage=stage)
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, force=True)


class OpsServer:
    """Answers the three addresses on a thread.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, host: str, port: int, ready: Callable[[], bool]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = _answer(self.path, ready)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes are not worth a line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 1}, daemon=True, name="ops"
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _answer(path: str, ready: Callable[[], bool]) -> tuple[int, str, bytes]:
    text = "text/plain; charset=utf-8"
    if path == "/healthz":
        return 200, text, b"ok\n"
    if path == "/readyz":
        return (200, text, b"ready\n") if ready() else (503, text, b"not ready\n")
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    return 404, text, b"/healthz, /readyz and /metrics are here\n"


def start_ops_server(host: str, port: int, ready: Callable[[], bool]) -> OpsServer:
    """Serve /healthz, /readyz and /metrics; port 0 takes a free one."""
    return OpsServer(host, port, ready)
