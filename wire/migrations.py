"""Runs the scripts of `schemas/migrations` with Alembic; imported only where one is to run."""

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import DependencyDown
from wire.database import MIGRATIONS

# Any number will do, as long as no other program on the same database locks it.
_LOCK = 0x6E68_6F6F_6401


def upgrade(database_url: str, where: str) -> None:
    """Go to the newest version; whoever else migrates this database waits.

    Args:
        database_url: With user and password.
        where: The same without, for sentences.

    Raises:
        DependencyDown: `migration_unknown` or `migration_failed`.
    """
    engine = sqlalchemy.create_engine(sqlalchemy_url(database_url), poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as held:
            key = {"key": _LOCK}
            held.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), key)
            held.commit()
            try:
                config = alembic_config()
                config.attributes["connection"] = held
                command.upgrade(config, "head")
                held.commit()
            finally:
                held.rollback()
                held.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), key)
                held.commit()
    except CommandError as error:
        raise DependencyDown(
            "The database was made by a newer version of NeighbourHood, or its migration history"
            " is damaged; run the version that made it, or restore a backup.",
            code="migration_unknown",
            detail=str(error),
        ) from error
    except SQLAlchemyError as error:
        raise DependencyDown(
            f"The database at {where} could not be migrated; is the server up, and may this user"
            " make tables?",
            code="migration_failed",
            detail=str(error.__cause__ or error),
        ) from error
    finally:
        engine.dispose()


def alembic_config() -> Config:
    """Give Alembic's configuration for our folder of migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def sqlalchemy_url(database_url: str) -> str:
    """Name psycopg as the driver: `postgresql://…` gives `postgresql+psycopg://…`."""
    scheme, found, rest = database_url.partition("://")
    return f"postgresql+psycopg://{rest}" if found and "+" not in scheme else database_url
