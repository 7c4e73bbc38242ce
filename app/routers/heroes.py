"""Heroes and teams, by name: everybody reads them, whoever has heroes:write changes them."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Response
from sqlalchemy import ColumnElement, Select, and_, delete, insert, join, select, true, update
from sqlmodel import Session, col

from app.core.dialects import insert_missing
from app.core.errors import HeroNameTaken, HeroNotFound, NotFound, TeamNameTaken, TeamNotFound
from app.dependencies import Page, PageDep, RowId, SessionDep, requires
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
NO_HERO, NO_TEAM = problems(HeroNotFound), problems(TeamNotFound)

_Rows = Select[*tuple[Any, ...]]
_TEAM = (col(Team.id), col(Team.name), col(Team.headquarters))


def _hero(me: Caller) -> Sequence[Any]:
    """The columns that the caller may see: what is not read cannot leak."""
    secrets = [col(Hero.secret_name)] if "heroes:secrets" in me.scopes else []
    return [col(Hero.id), col(Hero.name), col(Hero.age), *secrets]


# ---- Heroes ----


@router.get("/heroes", operation_id="listHeroes")
def list_heroes(me: Reader, session: SessionDep, page: PageDep) -> list[HeroPublic]:
    """All heroes, by name."""
    return [HeroPublic(**row) for row in _page(session, page, select(*_hero(me)).where(_behind(page, Hero)))]


@router.post("/heroes", status_code=201, operation_id="createHero", responses=problems(HeroNameTaken) | CREATED)
def create_hero(body: HeroCreate, me: Writer, session: SessionDep, response: Response) -> HeroPublic:
    """Add a hero, whose name no other hero has."""
    hero = HeroPublic(**_one(session, insert(Hero).values(**body.model_dump()).returning(*_hero(me))))
    response.headers["Location"] = f"/api/heroes/{hero.id}"
    return hero


@router.get("/heroes/{hero_id}", operation_id="readHero", responses=NO_HERO)
def read_hero(hero_id: RowId, me: Reader, session: SessionDep) -> HeroPublic:
    """The hero with this id."""
    return HeroPublic(**_one(session, select(*_hero(me)).where(col(Hero.id) == hero_id), HeroNotFound))


@router.patch("/heroes/{hero_id}", operation_id="updateHero", responses=problems(HeroNotFound, HeroNameTaken))
def update_hero(hero_id: RowId, body: HeroUpdate, me: Writer, session: SessionDep) -> HeroPublic:
    """Change what is sent and nothing else; null takes the age away."""
    return HeroPublic(**_one(session, _change(Hero, hero_id, body.model_dump(), _hero(me)), HeroNotFound))


@router.delete("/heroes/{hero_id}", status_code=204, operation_id="deleteHero", dependencies=WRITE, responses=NO_HERO)
def delete_hero(hero_id: RowId, session: SessionDep) -> None:
    """Delete a hero, who thereby leaves every team."""
    _one(session, delete(Hero).where(col(Hero.id) == hero_id).returning(col(Hero.id)), HeroNotFound)


# ---- Teams ----


@router.get("/teams", operation_id="listTeams", dependencies=READ)
def list_teams(session: SessionDep, page: PageDep) -> list[TeamPublic]:
    """All teams, by name."""
    return [TeamPublic(**row) for row in _page(session, page, select(*_TEAM).where(_behind(page, Team)))]


@router.post(
    "/teams",
    status_code=201,
    operation_id="createTeam",
    dependencies=WRITE,
    responses=problems(TeamNameTaken) | CREATED,
)
def create_team(body: TeamCreate, session: SessionDep, response: Response) -> TeamPublic:
    """Add a team, whose name no other team has."""
    team = TeamPublic(**_one(session, insert(Team).values(**body.model_dump()).returning(*_TEAM)))
    response.headers["Location"] = f"/api/teams/{team.id}"
    return team


@router.get("/teams/{team_id}", operation_id="readTeam", dependencies=READ, responses=NO_TEAM)
def read_team(team_id: RowId, session: SessionDep) -> TeamPublic:
    """The team with this id."""
    return TeamPublic(**_one(session, select(*_TEAM).where(col(Team.id) == team_id), TeamNotFound))


@router.patch(
    "/teams/{team_id}",
    operation_id="updateTeam",
    dependencies=WRITE,
    responses=problems(TeamNotFound, TeamNameTaken),
)
def update_team(team_id: RowId, body: TeamUpdate, session: SessionDep) -> TeamPublic:
    """Change what is sent and nothing else."""
    return TeamPublic(**_one(session, _change(Team, team_id, body.model_dump(), _TEAM), TeamNotFound))


@router.delete("/teams/{team_id}", status_code=204, operation_id="deleteTeam", dependencies=WRITE, responses=NO_TEAM)
def delete_team(team_id: RowId, session: SessionDep) -> None:
    """Delete a team. Its heroes stay."""
    _one(session, delete(Team).where(col(Team.id) == team_id).returning(col(Team.id)), TeamNotFound)


# ---- Who belongs to which ----

_ADDRESS, _NEITHER = "/heroes/{hero_id}/teams/{team_id}", problems(HeroNotFound, TeamNotFound)


@router.get("/heroes/{hero_id}/teams", operation_id="listHeroTeams", dependencies=READ, responses=NO_HERO)
def list_hero_teams(hero_id: RowId, session: SessionDep, page: PageDep) -> list[TeamOfHero]:
    """The teams of a hero, by name."""
    teams = join(HeroTeamLink, Team, col(HeroTeamLink.team_id) == col(Team.id))
    of_hero = and_(col(HeroTeamLink.hero_id) == col(Hero.id), _behind(page, Team))
    found = select(*_TEAM, col(HeroTeamLink.joined_at)).select_from(Hero).outerjoin(teams, of_hero)
    return [TeamOfHero(**row) for row in _page(session, page, found.where(col(Hero.id) == hero_id), HeroNotFound)]


@router.get("/teams/{team_id}/heroes", operation_id="listTeamHeroes", responses=NO_TEAM)
def list_team_heroes(team_id: RowId, me: Reader, session: SessionDep, page: PageDep) -> list[HeroOfTeam]:
    """The heroes of a team, by name."""
    heroes = join(HeroTeamLink, Hero, col(HeroTeamLink.hero_id) == col(Hero.id))
    of_team = and_(col(HeroTeamLink.team_id) == col(Team.id), _behind(page, Hero))
    found = select(*_hero(me), col(HeroTeamLink.joined_at)).select_from(Team).outerjoin(heroes, of_team)
    return [HeroOfTeam(**row) for row in _page(session, page, found.where(col(Team.id) == team_id), TeamNotFound)]


@router.put(_ADDRESS, status_code=204, operation_id="joinTeam", dependencies=WRITE, responses=_NEITHER)
def join_team(hero_id: RowId, team_id: RowId, session: SessionDep) -> None:
    """Put a hero in a team. Who is in it already keeps the time of joining."""
    _keep(session, hero_id, team_id)
    pair = {"hero_id": hero_id, "team_id": team_id}
    insert_missing(session, HeroTeamLink, list(pair), **pair, joined_at=utcnow())


@router.delete(_ADDRESS, status_code=204, operation_id="leaveTeam", dependencies=WRITE, responses=_NEITHER)
def leave_team(hero_id: RowId, team_id: RowId, session: SessionDep) -> None:
    """Take a hero out of a team, or find that the hero is not in it."""
    _keep(session, hero_id, team_id)
    link = and_(col(HeroTeamLink.hero_id) == hero_id, col(HeroTeamLink.team_id) == team_id)
    session.connection().execute(delete(HeroTeamLink).where(link))


def _keep(session: Session, hero_id: int, team_id: int) -> None:
    """Both are there, and nobody deletes them before the commit: a link always finds what it refers to."""
    hero, team = (
        select(col(Hero.id)).where(col(Hero.id) == hero_id),
        select(col(Team.id)).where(col(Team.id) == team_id),
    )
    _one(session, hero.with_for_update(read=True, key_share=True), HeroNotFound)
    _one(session, team.with_for_update(read=True, key_share=True), TeamNotFound)


# ---- Statements on either table ----


def _behind(page: Page, table: type[Hero | Team]) -> ColumnElement[bool]:
    """Names are unique: the last one of a page is all that the next one needs to know."""
    return col(table.name) > page.position[0] if page.position else true()


def _page(session: Session, page: Page, found: _Rows, missing: type[NotFound] | None = None) -> list[dict[str, Any]]:
    """A page by name. `missing`: an outer join from one row, so that no rows mean none, and an empty one no members."""
    rows = session.connection().execute(found.order_by(found.selected_columns.name).limit(page.limit + 1)).all()
    if missing and not rows:
        raise missing
    return [row._asdict() for row in page.cut([row for row in rows if row.id is not None], lambda row: [row.name])]


def _one(session: Session, statement: Any, missing: type[NotFound] = NotFound) -> dict[str, Any]:
    row = session.connection().execute(statement).first()
    if row is None:
        raise missing
    return dict(row._asdict())


def _change(table: type[Hero | Team], row_id: int, changes: dict[str, Any], columns: Sequence[Any]) -> Any:
    """The row after the change; without one it is only read."""
    if not changes:
        return select(*columns).where(col(table.id) == row_id)
    return update(table).where(col(table.id) == row_id).values(**changes).returning(*columns)
