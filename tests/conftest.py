"""Real servers for the tests: started once per run in a folder of its own, gone at the end."""

import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from nhood.embedded import kafka, postgres, valkey
from nhood.embedded.server import Running, free_port, stop
from schemas.provider import load_catalogue
from schemas.settings import Secret, Settings
from schemas.topics import concrete_topics, load_topics, topics_file
from tests.folders import folder_for_servers
from tests.root_keys import write_root_key
from wire.admin import ensure_topics
from wire.database import migrate


@dataclass(frozen=True)
class Stack:
    """Addresses of the three servers."""

    kafka: str
    postgres: str
    valkey: str
    folder: Path


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with folder_for_servers("stack") as folder:
        yield from _started(folder)


def _started(folder: Path) -> Iterator[Stack]:
    started: list[tuple[Running, int]] = []
    try:
        broker = kafka.start(folder, Settings.from_env(), os.environ, port=free_port())
        started.append((broker, signal.SIGTERM))
        database = postgres.start(folder, os.environ, port=free_port())
        started.append((database, signal.SIGINT))
        cache = valkey.start(folder, os.environ, port=free_port())
        started.append((cache, signal.SIGTERM))
        yield Stack(broker.address, database.address, cache.address, folder)
    finally:
        for server, number in reversed(started):
            stop(server, number=number)


@pytest.fixture(scope="session")
def kafka_topics(stack: Stack) -> str:
    """Kafka's address, with every declared topic there."""
    slugs = [spec.slug for spec in load_catalogue()]
    declared = concrete_topics(load_topics(topics_file().read_text()), slugs)
    ensure_topics(stack.kafka, declared)
    return stack.kafka


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[str]:
    """Address of a fresh, migrated database for one test module."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(stack.postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address = f"{stack.postgres.rpartition('/')[0]}/{name}"
    migrate(address)
    yield address
    with psycopg.connect(stack.postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(stack: Stack, database: str, kafka_topics: str, tmp_path: Path) -> Settings:
    """Settings of a stage that uses the real servers, with the database's root key."""
    key = write_root_key(tmp_path / "master.key", database)
    return replace(
        Settings(),
        kafka_bootstrap_servers=kafka_topics,
        database_url=Secret(database),
        redis_url=Secret(stack.valkey),
        state_dir=str(tmp_path),
        master_key_file=str(key),
    )
