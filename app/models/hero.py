"""Heroes, teams, and the memberships that link them: the tables, and the schemas of the API."""

from collections.abc import Collection
from typing import Annotated, Any, Self

from pydantic import MISSING, StrictInt
from sqlmodel import Field, Relationship, SQLModel, UniqueConstraint

from app.models.base import NEVER_LAZY, BigId, Body, Id, SortedName, described, utcnow
from app.models.types import UtcTime, line

HeroName = Annotated[str, *line(100, "Deadpond", "The hero's name, which is unique.")]
SecretName = Annotated[str, *line(100, "Dive Wilson", "Responses have it only for callers with `heroes:secrets`.")]
Age = Annotated[StrictInt, described("In years.", 48, ge=0, le=10_000)]
TeamName = Annotated[str, *line(100, "Preventers", "The team's name, which is unique.")]
Headquarters = Annotated[str, *line(100, "Sharp Tower", "Where the team meets.")]
Joined = Annotated[UtcTime, Field(description="When the hero joined the team.")]


class HeroTeamLink(SQLModel, table=True):
    """A hero's membership in a team: "Link Model with Extra Fields" of SQLModel's tutorial.

    Relationship(link_model=…) would lead from a hero straight to the teams, without the time of joining.
    """

    __tablename__ = "hero_team_link"

    hero_id: int = Field(foreign_key="hero.id", ondelete="CASCADE", primary_key=True, sa_type=BigId)
    team_id: int = Field(foreign_key="team.id", ondelete="CASCADE", primary_key=True, index=True, sa_type=BigId)
    joined_at: UtcTime = Field(default_factory=utcnow)

    hero: "Hero" = Relationship(back_populates="team_links", sa_relationship_kwargs=NEVER_LAZY)
    team: "Team" = Relationship(back_populates="hero_links", sa_relationship_kwargs=NEVER_LAZY)


# ---- Heroes ----


class HeroBase(SQLModel):
    name: HeroName = Field(sa_type=SortedName)
    age: Age | None = Field(default=None)


class Hero(HeroBase, table=True):
    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    secret_name: str = Field(max_length=100)

    team_links: list[HeroTeamLink] = Relationship(
        back_populates="hero", passive_deletes="all", sa_relationship_kwargs=NEVER_LAZY
    )


class HeroCreate(Body, HeroBase):
    secret_name: SecretName


class HeroUpdate(Body):
    name: HeroName | MISSING = Field(default=MISSING)
    age: Age | MISSING | None = Field(default=MISSING)
    secret_name: SecretName | MISSING = Field(default=MISSING)


class HeroPublic(HeroBase):
    id: Id
    secret_name: SecretName | MISSING = Field(default=MISSING)

    @classmethod
    def of(cls, hero: Hero, scopes: Collection[str], **more: Any) -> Self:
        """The hero as a caller with these scopes may see it."""
        hidden = {} if "heroes:secrets" in scopes else {"secret_name": MISSING}
        return cls.model_validate(hero, update={**hidden, **more})


# ---- Teams ----


class TeamBase(SQLModel):
    name: TeamName = Field(sa_type=SortedName)
    headquarters: Headquarters = Field(max_length=100)


class Team(TeamBase, table=True):
    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)

    hero_links: list[HeroTeamLink] = Relationship(
        back_populates="team", passive_deletes="all", sa_relationship_kwargs=NEVER_LAZY
    )


class TeamCreate(Body, TeamBase):
    pass


class TeamUpdate(Body):
    name: TeamName | MISSING = Field(default=MISSING)
    headquarters: Headquarters | MISSING = Field(default=MISSING)


class TeamPublic(TeamBase):
    id: Id


# ---- Memberships ----


class TeamOfHero(TeamPublic):
    joined_at: Joined


class HeroOfTeam(HeroPublic):
    joined_at: Joined
