"""The environment of every migration: one transaction, one process at a time, no long wait for a lock."""

import sqlite3
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from app.core.settings import get_settings
from app.models.base import all_tables
from migrations.autogenerate import render_item

LOCK_ID = 0x6D757374  # an arbitrary number that all processes share
LOCK_TIMEOUT = "5s"  # a migration that waits behind a query blocks every query after it
WAIT_FOR_OTHERS = 120  # seconds that SQLite waits while another process migrates


def run() -> None:
    settings = get_settings()
    all_tables()
    engine = _sqlite(settings.database_url) if settings.on_sqlite else _postgres(settings.database_url)
    with engine.begin() as connection:
        if not settings.on_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.configure(
            connection=connection,
            target_metadata=SQLModel.metadata,
            render_as_batch=True,
            compare_server_default=not settings.on_sqlite,
            render_item=render_item,
        )
        context.run_migrations()
        if settings.on_sqlite:
            _refuse_dangling_rows(connection)
    engine.dispose()


def _postgres(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, connect_args={"application_name": "muster migrations"})


def _sqlite(url: str) -> Engine:
    """An engine without foreign keys: batch mode rebuilds tables, and dropping one would delete its referrers."""
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": WAIT_FOR_OTHERS, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys=OFF")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _refuse_dangling_rows(connection: Connection) -> None:
    if dangling := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise RuntimeError(f"the migration leaves a row in {dangling[0]} that refers to a missing row")


run()
