"""Heroes and teams, sorted by name. Reading them needs the scope heroes:read, changing them heroes:write."""

from typing import Annotated

from fastapi import Response
from sqlalchemy.orm import contains_eager
from sqlmodel import Session, col, delete, select

from app.core.dialects import insert_missing
from app.core.errors import Conflict, NotFound, found
from app.dependencies import PageDep, RowId, SessionDep, requires
from app.http.openapi import located, problems
from app.http.routing import Router
from app.models.hero import (
    Hero,
    HeroCreate,
    HeroOfTeam,
    HeroPublic,
    HeroTeamLink,
    HeroUpdate,
    Team,
    TeamCreate,
    TeamOfHero,
    TeamPublic,
    TeamUpdate,
)
from app.oauth2.resource_server import Caller

router = Router(prefix="/api", tags=["heroes"])


class HeroNotFound(NotFound, title="No such hero"):
    """There is no hero with this id."""


class TeamNotFound(NotFound, title="No such team"):
    """There is no team with this id."""


class HeroNameTaken(Conflict, title="This hero name is taken", constraints=("uq_hero_name",), field="name"):
    """A hero with this name already exists. Choose another name."""


class TeamNameTaken(Conflict, title="This team name is taken", constraints=("uq_team_name",), field="name"):
    """A team with this name already exists. Choose another name."""


READ, WRITE = [requires("heroes:read")], [requires("heroes:write")]
Reader = Annotated[Caller, requires("heroes:read")]
Writer = Annotated[Caller, requires("heroes:write")]
NO_HERO, NO_TEAM, NEITHER = problems(HeroNotFound), problems(TeamNotFound), problems(HeroNotFound, TeamNotFound)

# The rows that a statement joins to sort by are the relationship's too. SQLModel types a relationship as its value, not
# as the attribute that contains_eager takes.
TEAM, HERO = contains_eager(HeroTeamLink.team), contains_eager(HeroTeamLink.hero)  # type: ignore[arg-type]


# ---- Heroes ----


@router.get("/heroes")
def list_heroes(me: Reader, session: SessionDep, page: PageDep) -> list[HeroPublic]:
    """All heroes, by name."""
    heroes = session.exec(page.of(select(Hero), col(Hero.name)))
    return [HeroPublic.of(hero, me.scopes) for hero in page.cut(heroes)]


@router.post("/heroes", status_code=201, responses=problems(HeroNameTaken) | located("/api/heroes/7"))
def create_hero(body: HeroCreate, me: Writer, session: SessionDep, response: Response) -> HeroPublic:
    """Add a hero. Names are unique."""
    hero = Hero.model_validate(body)
    session.add(hero)
    session.flush()  # generates the id
    response.headers["Location"] = f"/api/heroes/{hero.id}"
    return HeroPublic.of(hero, me.scopes)


@router.get("/heroes/{hero_id}", responses=NO_HERO)
def read_hero(hero_id: RowId, me: Reader, session: SessionDep) -> HeroPublic:
    """The hero with this id."""
    hero = found(session.get(Hero, hero_id), HeroNotFound)
    return HeroPublic.of(hero, me.scopes)


@router.patch("/heroes/{hero_id}", responses=problems(HeroNotFound, HeroNameTaken))
def update_hero(hero_id: RowId, body: HeroUpdate, me: Writer, session: SessionDep) -> HeroPublic:
    """Change the fields that are sent; null clears the age."""
    hero = found(session.get(Hero, hero_id, with_for_update=True), HeroNotFound)  # locked until the commit
    hero.sqlmodel_update(body.model_dump())
    session.add(hero)
    return HeroPublic.of(hero, me.scopes)


@router.delete("/heroes/{hero_id}", status_code=204, dependencies=WRITE, responses=NO_HERO)
def delete_hero(hero_id: RowId, session: SessionDep) -> None:
    """Delete a hero and its team memberships."""
    hero = found(session.get(Hero, hero_id, with_for_update=True), HeroNotFound)
    session.delete(hero)


# ---- Teams ----


@router.get("/teams", dependencies=READ)
def list_teams(session: SessionDep, page: PageDep) -> list[TeamPublic]:
    """All teams, by name."""
    teams = session.exec(page.of(select(Team), col(Team.name)))
    return [TeamPublic.model_validate(team) for team in page.cut(teams)]


@router.post("/teams", status_code=201, dependencies=WRITE, responses=problems(TeamNameTaken) | located("/api/teams/7"))
def create_team(body: TeamCreate, session: SessionDep, response: Response) -> TeamPublic:
    """Add a team. Names are unique."""
    team = Team.model_validate(body)
    session.add(team)
    session.flush()  # generates the id
    response.headers["Location"] = f"/api/teams/{team.id}"
    return TeamPublic.model_validate(team)


@router.get("/teams/{team_id}", dependencies=READ, responses=NO_TEAM)
def read_team(team_id: RowId, session: SessionDep) -> TeamPublic:
    """The team with this id."""
    team = found(session.get(Team, team_id), TeamNotFound)
    return TeamPublic.model_validate(team)


@router.patch("/teams/{team_id}", dependencies=WRITE, responses=problems(TeamNotFound, TeamNameTaken))
def update_team(team_id: RowId, body: TeamUpdate, session: SessionDep) -> TeamPublic:
    """Change the fields that are sent."""
    team = found(session.get(Team, team_id, with_for_update=True), TeamNotFound)
    team.sqlmodel_update(body.model_dump())
    session.add(team)
    return TeamPublic.model_validate(team)


@router.delete("/teams/{team_id}", status_code=204, dependencies=WRITE, responses=NO_TEAM)
def delete_team(team_id: RowId, session: SessionDep) -> None:
    """Delete a team. Its heroes stay."""
    team = found(session.get(Team, team_id, with_for_update=True), TeamNotFound)
    session.delete(team)


# ---- Memberships ----


@router.get("/heroes/{hero_id}/teams", dependencies=READ, responses=NO_HERO)
def list_hero_teams(hero_id: RowId, session: SessionDep, page: PageDep) -> list[TeamOfHero]:
    """The teams of a hero, by name."""
    found(session.get(Hero, hero_id), HeroNotFound)
    links = select(HeroTeamLink).join(Team).options(TEAM).where(HeroTeamLink.hero_id == hero_id)
    rows = page.cut(session.exec(page.of(links, col(Team.name), value="team.name")))
    return [TeamOfHero.model_validate(link.team, update={"joined_at": link.joined_at}) for link in rows]


@router.get("/teams/{team_id}/heroes", responses=NO_TEAM)
def list_team_heroes(team_id: RowId, me: Reader, session: SessionDep, page: PageDep) -> list[HeroOfTeam]:
    """The heroes of a team, by name."""
    found(session.get(Team, team_id), TeamNotFound)
    links = select(HeroTeamLink).join(Hero).options(HERO).where(HeroTeamLink.team_id == team_id)
    rows = page.cut(session.exec(page.of(links, col(Hero.name), value="hero.name")))
    return [HeroOfTeam.of(link.hero, me.scopes, joined_at=link.joined_at) for link in rows]


@router.put("/heroes/{hero_id}/teams/{team_id}", status_code=204, dependencies=WRITE, responses=NEITHER)
def join_team(hero_id: RowId, team_id: RowId, session: SessionDep) -> None:
    """Put a hero in a team. A hero who is in it already keeps the time of joining."""
    _lock_both(session, hero_id, team_id)
    insert_missing(session, HeroTeamLink, hero_id=hero_id, team_id=team_id)


@router.delete("/heroes/{hero_id}/teams/{team_id}", status_code=204, dependencies=WRITE, responses=NEITHER)
def leave_team(hero_id: RowId, team_id: RowId, session: SessionDep) -> None:
    """Take a hero out of a team. Succeeds even if the hero is not in it."""
    _lock_both(session, hero_id, team_id)
    session.exec(delete(HeroTeamLink).where(col(HeroTeamLink.hero_id) == hero_id, col(HeroTeamLink.team_id) == team_id))


# ---- Shared by the routes ----


def _lock_both(session: Session, hero_id: int, team_id: int) -> None:
    """Lock the hero and the team, so that neither is deleted before the commit: a link refers to existing rows."""
    found(session.get(Hero, hero_id, with_for_update={"read": True, "key_share": True}), HeroNotFound)
    found(session.get(Team, team_id, with_for_update={"read": True, "key_share": True}), TeamNotFound)
