"""The revision of the database schema: the newest one in migrations/, and the one that the database has."""

from sqlalchemy import NullPool, create_engine, exc, inspect, text

from app.core.dialects import CONNECT_TIMEOUT
from app.core.settings import ROOT, Settings

NOT_MIGRATED = (
    "the database is not migrated: start ./scripts/serve, or stop it and start it again,"
    " or run `.venv/bin/alembic upgrade head` and then ./scripts/seed.py"
)


def newest_revision() -> str:
    return known_revisions()[-1]


def known_revisions() -> list[str]:
    """The revisions in migrations/, oldest first, from the file names: importing Alembic takes half a second."""
    files = sorted((ROOT / "migrations" / "versions").glob("*.py"))
    return [file.name.partition("-")[2].partition("_")[0] for file in files]


def schema_revision(settings: Settings) -> str | None:
    """The revision of the database; None if it is empty."""
    timeout = {} if settings.on_sqlite else {"connect_timeout": CONNECT_TIMEOUT}
    engine = create_engine(settings.database_url, poolclass=NullPool, connect_args=timeout)
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def reason_not_to_start(settings: Settings) -> str | None:
    """Why the service must not start: the database is empty or of an older release. None if it is neither, or is
    unreachable at the moment.

    A newer schema passes: while a release is rolled out, a process of the old one may be restarted.
    """
    if settings.on_sqlite and not settings.sqlite_file.exists():
        return f"muster: {NOT_MIGRATED}"  # and connecting would create the file
    try:
        revision = schema_revision(settings)
    except exc.DBAPIError:
        return None
    is_behind = revision is None or revision in known_revisions()[:-1]
    return f"muster: {NOT_MIGRATED}" if is_behind else None
