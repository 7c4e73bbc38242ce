"""Heroes and teams, ordered by name: callers with heroes:read read them, those with heroes:write change them."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import MISSING
from sqlalchemy import delete
from sqlmodel import Session, col, join, select

from app.core.dialects import insert_missing
from app.core.errors import HeroNameTaken, HeroNotFound, TeamNameTaken, TeamNotFound
from app.dependencies import PageDep, RowId, SessionDep, requires
from app.http.openapi import CREATED, problems
from app.http.routing import Router
from app.models.base import utcnow
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
from app.oauth2.authorization_server import Caller

router = Router("/api", tags=["heroes"])

READ, WRITE = [requires("heroes:read")], [requires("heroes:write")]
Reader = Annotated[Caller, requires("heroes:read")]
Writer = Annotated[Caller, requires("heroes:write")]
NO_HERO, NO_TEAM, NEITHER = problems(HeroNotFound), problems(TeamNotFound), problems(HeroNotFound, TeamNotFound)


# ---- Heroes ----


@router.get("/heroes")
def list_heroes(me: Reader, session: SessionDep, page: PageDep) -> list[HeroPublic]:
    """All heroes, by name."""
    statement = select(Hero).order_by(Hero.name).limit(page.limit + 1)
    if page.position:
        statement = statement.where(Hero.name > page.position[0])
    heroes = page.cut(session.exec(statement).all(), lambda hero: [hero.name])
    return [HeroPublic.model_validate(hero, update=_secrets(me)) for hero in heroes]


@router.post("/heroes", status_code=201, responses=problems(HeroNameTaken) | CREATED)
def create_hero(body: HeroCreate, me: Writer, session: SessionDep, response: Response) -> HeroPublic:
    """Add a hero, whose name no other hero has."""
    hero = Hero.model_validate(body)
    session.add(hero)
    session.flush()  # generates the id
    response.headers["Location"] = f"/api/heroes/{hero.id}"
    return HeroPublic.model_validate(hero, update=_secrets(me))


@router.get("/heroes/{hero_id}", responses=NO_HERO)
def read_hero(hero_id: RowId, me: Reader, session: SessionDep) -> HeroPublic:
    """The hero with this id."""
    return HeroPublic.model_validate(_hero(session, hero_id), update=_secrets(me))


@router.patch("/heroes/{hero_id}", responses=problems(HeroNotFound, HeroNameTaken))
def update_hero(hero_id: RowId, body: HeroUpdate, me: Writer, session: SessionDep) -> HeroPublic:
    """Change the fields that are sent; null clears the age."""
    hero = _hero(session, hero_id, lock=True)
    hero.sqlmodel_update(body.model_dump())
    session.add(hero)
    session.flush()
    return HeroPublic.model_validate(hero, update=_secrets(me))


@router.delete("/heroes/{hero_id}", status_code=204, dependencies=WRITE, responses=NO_HERO)
def delete_hero(hero_id: RowId, session: SessionDep) -> None:
    """Delete a hero, who thereby leaves every team."""
    session.delete(_hero(session, hero_id, lock=True))
    session.flush()


def _hero(session: Session, hero_id: int, *, lock: bool = False) -> Hero:
    """The hero, or HeroNotFound. Locked, nobody else changes or deletes it before the commit."""
    hero = session.get(Hero, hero_id, with_for_update=lock)
    if hero is None:
        raise HeroNotFound
    return hero


def _secrets(me: Caller) -> dict[str, Any]:
    """What HeroPublic leaves out for this caller."""
    return {} if "heroes:secrets" in me.scopes else {"secret_name": MISSING}


# ---- Teams ----


@router.get("/teams", dependencies=READ)
def list_teams(session: SessionDep, page: PageDep) -> list[TeamPublic]:
    """All teams, by name."""
    statement = select(Team).order_by(Team.name).limit(page.limit + 1)
    if page.position:
        statement = statement.where(Team.name > page.position[0])
    teams = page.cut(session.exec(statement).all(), lambda team: [team.name])
    return [TeamPublic.model_validate(team) for team in teams]


@router.post(
    "/teams",
    status_code=201,
    dependencies=WRITE,
    responses=problems(TeamNameTaken) | CREATED,
)
def create_team(body: TeamCreate, session: SessionDep, response: Response) -> TeamPublic:
    """Add a team, whose name no other team has."""
    team = Team.model_validate(body)
    session.add(team)
    session.flush()  # generates the id
    response.headers["Location"] = f"/api/teams/{team.id}"
    return TeamPublic.model_validate(team)


@router.get("/teams/{team_id}", dependencies=READ, responses=NO_TEAM)
def read_team(team_id: RowId, session: SessionDep) -> TeamPublic:
    """The team with this id."""
    return TeamPublic.model_validate(_team(session, team_id))


@router.patch(
    "/teams/{team_id}",
    dependencies=WRITE,
    responses=problems(TeamNotFound, TeamNameTaken),
)
def update_team(team_id: RowId, body: TeamUpdate, session: SessionDep) -> TeamPublic:
    """Change the fields that are sent."""
    team = _team(session, team_id, lock=True)
    team.sqlmodel_update(body.model_dump())
    session.add(team)
    session.flush()
    return TeamPublic.model_validate(team)


@router.delete("/teams/{team_id}", status_code=204, dependencies=WRITE, responses=NO_TEAM)
def delete_team(team_id: RowId, session: SessionDep) -> None:
    """Delete a team. Its heroes stay."""
    session.delete(_team(session, team_id, lock=True))
    session.flush()


def _team(session: Session, team_id: int, *, lock: bool = False) -> Team:
    """The team, or TeamNotFound. Locked, nobody else changes or deletes it before the commit."""
    team = session.get(Team, team_id, with_for_update=lock)
    if team is None:
        raise TeamNotFound
    return team


# ---- Memberships ----


@router.get("/heroes/{hero_id}/teams", dependencies=READ, responses=NO_HERO)
def list_hero_teams(hero_id: RowId, session: SessionDep, page: PageDep) -> list[TeamOfHero]:
    """The teams of a hero, by name."""
    of_hero = col(HeroTeamLink.hero_id) == Hero.id
    if page.position:
        of_hero &= col(Team.name) > page.position[0]
    # One statement: an unknown hero gives no row, a hero without teams gives one whose team is None.
    statement = (
        select(Team, HeroTeamLink.joined_at)
        .select_from(Hero)
        .outerjoin(join(HeroTeamLink, Team), of_hero)
        .where(Hero.id == hero_id)
        .order_by(Team.name)
        .limit(page.limit + 1)
    )
    rows = session.exec(statement).all()
    if not rows:
        raise HeroNotFound
    teams = page.cut([row for row in rows if row[0] is not None], lambda row: [row[0].name])
    return [TeamOfHero.model_validate(team, update={"joined_at": joined_at}) for team, joined_at in teams]


@router.get("/teams/{team_id}/heroes", responses=NO_TEAM)
def list_team_heroes(team_id: RowId, me: Reader, session: SessionDep, page: PageDep) -> list[HeroOfTeam]:
    """The heroes of a team, by name."""
    of_team = col(HeroTeamLink.team_id) == Team.id
    if page.position:
        of_team &= col(Hero.name) > page.position[0]
    statement = (
        select(Hero, HeroTeamLink.joined_at)
        .select_from(Team)
        .outerjoin(join(HeroTeamLink, Hero), of_team)
        .where(Team.id == team_id)
        .order_by(Hero.name)
        .limit(page.limit + 1)
    )
    rows = session.exec(statement).all()
    if not rows:
        raise TeamNotFound
    heroes = page.cut([row for row in rows if row[0] is not None], lambda row: [row[0].name])
    secrets = _secrets(me)
    return [HeroOfTeam.model_validate(hero, update={**secrets, "joined_at": joined_at}) for hero, joined_at in heroes]


@router.put(
    "/heroes/{hero_id}/teams/{team_id}",
    status_code=204,
    dependencies=WRITE,
    responses=NEITHER,
)
def join_team(hero_id: RowId, team_id: RowId, session: SessionDep) -> None:
    """Put a hero in a team. A hero who is in it already keeps the time of joining."""
    _hold(session, hero_id, team_id)
    pair = {"hero_id": hero_id, "team_id": team_id}
    insert_missing(session, HeroTeamLink, list(pair), **pair, joined_at=utcnow())


@router.delete(
    "/heroes/{hero_id}/teams/{team_id}",
    status_code=204,
    dependencies=WRITE,
    responses=NEITHER,
)
def leave_team(hero_id: RowId, team_id: RowId, session: SessionDep) -> None:
    """Take a hero out of a team. It is fine if the hero is not in it."""
    _hold(session, hero_id, team_id)
    session.exec(delete(HeroTeamLink).where(col(HeroTeamLink.hero_id) == hero_id, col(HeroTeamLink.team_id) == team_id))


def _hold(session: Session, hero_id: int, team_id: int) -> None:
    """Keep both from being deleted before the commit, so that a link always refers to rows that exist."""
    shared = {"read": True, "key_share": True}
    if session.get(Hero, hero_id, with_for_update=shared) is None:
        raise HeroNotFound
    if session.get(Team, team_id, with_for_update=shared) is None:
        raise TeamNotFound
