"""Database errors as the client sees them."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from app.core.dialects import as_app_error
from app.core.errors import Conflict
from app.models.hero import Hero


def test_changing_a_row_that_was_deleted_meanwhile_is_a_conflict(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with Session(engine) as session:
        session.add(hero := Hero(name="Deadpond", secret_name="Dive Wilson"))
        session.commit()
        session.refresh(hero)
        with Session(engine) as other:
            session.rollback()
            other.delete(other.get_one(Hero, hero.id))
            other.commit()
        hero.age = 48
        session.add(hero)
        with pytest.raises(StaleDataError) as raised:
            session.flush()
    assert isinstance(as_app_error(raised.value), Conflict)
