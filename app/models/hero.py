"""Heroes, teams, and who belongs to which."""

from datetime import datetime
from typing import Annotated

from pydantic import MISSING
from pydantic import Field as Limits
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.models.base import BigId, Body, SortedName
from app.models.types import Name

Age = Annotated[int, Limits(ge=0, le=10_000, strict=True, examples=[48])]
_SEEN_BY = "Only for callers with `heroes:secrets`; absent for everybody else."


class HeroBase(SQLModel):
    name: Name = Field(sa_type=SortedName)
    age: Age | None = Field(default=None)


class Hero(HeroBase, table=True):
    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    secret_name: str = Field(max_length=100)


class HeroCreate(Body, HeroBase):
    secret_name: Name


class HeroUpdate(Body):
    name: Name | MISSING = Field(default=MISSING)
    age: Age | MISSING | None = Field(default=MISSING)
    secret_name: Name | MISSING = Field(default=MISSING)


class HeroPublic(HeroBase):
    id: int
    secret_name: Name | MISSING = Field(default=MISSING, description=_SEEN_BY)


class TeamBase(SQLModel):
    name: Name = Field(sa_type=SortedName)
    headquarters: Name = Field(max_length=100)


class Team(TeamBase, table=True):
    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)


class TeamCreate(Body, TeamBase):
    pass


class TeamUpdate(Body):
    name: Name | MISSING = Field(default=MISSING)
    headquarters: Name | MISSING = Field(default=MISSING)


class TeamPublic(TeamBase):
    id: int


class HeroTeamLink(SQLModel, table=True):
    __tablename__ = "hero_team_link"

    hero_id: int = Field(foreign_key="hero.id", ondelete="CASCADE", primary_key=True, sa_type=BigId)
    team_id: int = Field(foreign_key="team.id", ondelete="CASCADE", primary_key=True, index=True, sa_type=BigId)
    joined_at: datetime


class TeamOfHero(TeamPublic):
    joined_at: datetime


class HeroOfTeam(HeroPublic):
    joined_at: datetime
