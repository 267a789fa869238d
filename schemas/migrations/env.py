"""How Alembic runs our migrations: over the connection that `wire.database.migrate` holds.

It opens no connection itself, so the advisory lock and the changes share one session.
"""

from alembic import context

from schemas.tables import metadata


def run() -> None:
    """Run what is asked for in one transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
