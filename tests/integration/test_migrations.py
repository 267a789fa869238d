"""Migrations on a real PostgreSQL."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from schemas.errors import DependencyDown, InvalidInput
from schemas.tables import metadata
from wire.database import MIGRATIONS, migrate, open_pool
from wire.migrations import alembic_config, sqlalchemy_url
from wire.rotation import is_partition


@pytest.fixture
def empty(stack):
    """Address of an empty database."""
    name = f"empty_{secrets.token_hex(6)}"
    with psycopg.connect(stack.postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{stack.postgres.rpartition('/')[0]}/{name}"
    with psycopg.connect(stack.postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _engine(address):
    return sqlalchemy.create_engine(sqlalchemy_url(address), poolclass=sqlalchemy.NullPool)


def test_migrated_database_is_what_the_metadata_says(empty):
    migrate(empty)
    with _engine(empty).connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or not is_partition(name),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrating_at_the_same_time_and_again_is_harmless(empty):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, [empty] * 4))
    migrate(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (ScriptDirectory.from_config(alembic_config()).get_current_head(),)
        ]


def test_downgrade_leaves_nothing_behind(empty):
    from alembic import command

    migrate(empty)
    with _engine(empty).connect() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
    with psycopg.connect(empty) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    assert tables == [("alembic_version",)]


def test_database_of_a_newer_version_is_refused_with_a_sentence(empty):
    migrate(empty)
    with psycopg.connect(empty) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DependencyDown, match="newer version") as caught:
        migrate(empty)
    assert caught.value.code == "migration_unknown"


def test_migration_files_say_whether_they_go_before_or_after_the_code():
    names = [path.stem for path in Path(MIGRATIONS, "versions").glob("*.py")]
    assert names
    assert all("_pre_" in name or "_post_" in name for name in names)


def test_migrating_a_server_that_is_away_says_so():
    with pytest.raises(DependencyDown, match=r"127\.0\.0\.1:1/none"):
        migrate("postgresql://somebody:secret@127.0.0.1:1/none")


async def test_pool_of_a_server_that_is_away_says_so_without_the_password():
    with pytest.raises(DependencyDown) as caught:
        await open_pool("postgresql://somebody:hunter2@127.0.0.1:1/none", timeout_s=0.5)
    assert "127.0.0.1:1/none" in caught.value.public
    assert "hunter2" not in caught.value.public + caught.value.detail


async def test_address_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match="postgresql://"):
        await open_pool("mysql://127.0.0.1/none")
