"""The embedded servers: they start, survive a kill, and say clearly what is wrong."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis

from nhood.embedded import jars, kafka, postgres, valkey
from nhood.embedded.server import stop
from schemas.errors import StackError
from schemas.settings import Settings
from schemas.topics import EVENTS, concrete_topics, load_topics, topics_file
from wire.admin import ensure_topics

DECLARED = concrete_topics(load_topics(topics_file().read_text()), ["slack"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    return tmp_path


def test_kafka_keeps_its_topics_when_it_is_killed(folder):
    first = kafka.start(folder, Settings.from_env(), os.environ)
    made = ensure_topics(first.address, DECLARED)
    assert EVENTS in made.created
    os.kill(first.pid, signal.SIGKILL)
    stop(first)
    second = kafka.start(folder, Settings.from_env(), os.environ)
    try:
        again = ensure_topics(second.address, DECLARED)
        assert again.created == []
        assert again.drift == []
        assert second.port == first.port
    finally:
        stop(second)


def test_postgres_keeps_its_rows_when_it_is_killed(folder):
    first = postgres.start(folder, os.environ)
    with psycopg.connect(first.address) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(first.pid, signal.SIGKILL)
    stop(first)
    second = postgres.start(folder, os.environ)
    try:
        with psycopg.connect(second.address) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    finally:
        stop(second, number=signal.SIGINT)


def test_valkey_answers_with_its_password_only(folder):
    server = valkey.start(folder, os.environ)
    try:
        with redis.Redis.from_url(server.address) as client:
            assert client.set("a", "1")
        with (
            redis.Redis(port=server.port) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.get("a")
    finally:
        stop(server)


def test_drift_of_a_topic_is_told(stack, kafka_topics):
    (name, topic), *_ = concrete_topics(load_topics(topics_file().read_text()), ["slack"])
    report = ensure_topics(kafka_topics, [(name, replace(topic, retention_ms=1000))])
    assert report.drift == [f"{name}: retention.ms is 2592000000, topics.yaml says 1000."]


def test_jar_with_another_checksum_is_refused(tmp_path, httpserver_of):
    settings = replace(
        Settings(), cache_dir=str(tmp_path), maven_repository=httpserver_of(b"not a jar")
    )
    with pytest.raises(StackError, match="SHA-256 differs"):
        jars.ensure_jars(settings)
    assert list(tmp_path.rglob("*.jar")) == []


def test_missing_download_says_how_to_mend_it(tmp_path):
    settings = replace(
        Settings(), cache_dir=str(tmp_path), maven_repository="http://127.0.0.1:9/maven2"
    )
    with pytest.raises(StackError, match="NHOOD_MAVEN_REPOSITORY"):
        jars.ensure_jars(settings)


def test_damaged_kafka_folder_is_told(folder):
    data = folder / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("rubbish")
    with pytest.raises(StackError, match="damaged"):
        kafka.start(folder, Settings.from_env(), os.environ)


def test_damaged_postgres_folder_is_told(folder):
    data = folder / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18")
    with pytest.raises(StackError, match="damaged"):
        postgres.start(folder, os.environ)


@pytest.fixture
def httpserver_of():
    """Serve the same bytes for every path."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    servers = []

    def serve(content: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
