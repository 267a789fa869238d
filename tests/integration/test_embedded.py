"""The embedded servers: they start, survive a kill, and say clearly what is wrong."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis

from nhood.embedded import jars, kafka, postgres, valkey
from nhood.embedded.server import is_alive, last_error, stop
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


def test_valkey_keeps_its_keys_when_it_is_killed(folder):
    first = valkey.start(folder, os.environ)
    with redis.Redis.from_url(first.address) as client:
        client.set("kept", "7")
    os.kill(first.pid, signal.SIGKILL)
    stop(first)
    second = valkey.start(folder, os.environ)
    try:
        with redis.Redis.from_url(second.address) as client:
            assert client.get("kept") == b"7"
    finally:
        stop(second)


def test_server_that_nobody_knows_of_is_ended_before_its_folder_is_used(folder):
    lost = valkey.start(folder, os.environ)
    with redis.Redis.from_url(lost.address) as client:
        client.set("kept", "7")
    found = valkey.start(folder, os.environ)
    try:
        assert not is_alive(lost.pid, lost.created)
        assert found.address == lost.address
        with redis.Redis.from_url(found.address) as client:
            assert client.get("kept") == b"7"
    finally:
        stop(found)


def test_another_kafka_on_the_port_is_not_mistaken_for_ours(folder, stack):
    port = int(stack.kafka.rpartition(":")[2])
    with pytest.raises(StackError, match="Kafka did not start"):
        kafka.start(folder, Settings.from_env(), os.environ, port=port)


def test_taken_port_is_named_in_the_error(folder, stack):
    port = int(stack.valkey.rpartition(":")[2].partition("/")[0])
    with pytest.raises(StackError, match="Address already in use"):
        valkey.start(folder, os.environ, port=port)


def test_postgres_begins_anew_where_its_first_start_was_killed(folder):
    half = folder / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    server = postgres.start(folder, os.environ)
    try:
        with psycopg.connect(server.address) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        stop(server, number=signal.SIGINT)


def test_passwords_are_readable_by_their_owner_only(stack):
    for name in ("postgres", "valkey"):
        assert (stack.folder / name / "password").stat().st_mode & 0o777 == 0o600


def test_error_of_an_earlier_start_is_not_quoted(tmp_path):
    log = tmp_path / "some.log"
    log.write_text("--- starting java\nFATAL old\n--- starting java\nall is well\n")
    assert last_error(log) == "Its log ends: all is well"


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
