"""OAuth clients, for admins: which apps may sign people in by authorization code."""

from typing import Annotated

from fastapi import Path, Response
from sqlmodel import col, select

from app.core.errors import Conflict, NotFound, found
from app.dependencies import PageDep, SessionDep, requires
from app.http.openapi import located, problems
from app.http.routing import Router
from app.models.audit import record
from app.models.oauth_client import ClientId, OAuthClient, OAuthClientCreate, OAuthClientPublic, OAuthClientUpdate

router = Router(prefix="/api/clients", tags=["clients"])


class ClientNotFound(NotFound, title="No such client"):
    """There is no client with this id."""


# SQLite does not say that the violated constraint is the primary key.
class ClientIdTaken(
    Conflict, title="This client id is taken", constraints=("pk_oauth_client", "uq_oauth_client_id"), field="id"
):
    """A client with this id already exists. Change that one, or choose another id."""


WRITE = [requires("users:write")]
IdInPath = Annotated[ClientId, Path(description="The client_id.")]
NO_CLIENT = problems(ClientNotFound)
REGISTERED = problems(ClientIdTaken) | located("/api/clients/ledger-app")


@router.get("", dependencies=[requires("users:read")])
def list_clients(session: SessionDep, page: PageDep) -> list[OAuthClientPublic]:
    """The apps that may sign people in by authorization code, by id."""
    clients = session.exec(page.of(select(OAuthClient), col(OAuthClient.id)))
    return [OAuthClientPublic.model_validate(client) for client in page.cut(clients)]


@router.post("", status_code=201, dependencies=WRITE, responses=REGISTERED)
def create_client(body: OAuthClientCreate, session: SessionDep, response: Response) -> OAuthClientPublic:
    """Register an app. Its redirect URIs are compared exactly, except for the port of loopback addresses."""
    client = OAuthClient.model_validate(body)
    session.add(client)
    record(session, "client-registered", client_id=client.id)
    response.headers["Location"] = f"/api/clients/{client.id}"
    return OAuthClientPublic.model_validate(client)


@router.patch("/{client_id}", dependencies=WRITE, responses=NO_CLIENT)
def update_client(client_id: IdInPath, body: OAuthClientUpdate, session: SessionDep) -> OAuthClientPublic:
    """Change a client's name or redirect URIs. Takes effect at the next sign-in."""
    client = found(session.get(OAuthClient, client_id), ClientNotFound)
    client.sqlmodel_update(body.model_dump())
    session.add(client)
    record(session, "client-changed", client_id=client_id)
    return OAuthClientPublic.model_validate(client)


@router.delete("/{client_id}", status_code=204, dependencies=WRITE, responses=NO_CLIENT)
def delete_client(client_id: IdInPath, session: SessionDep) -> None:
    """Remove an app: nobody can sign in with it anymore. Existing sessions continue."""
    session.delete(found(session.get(OAuthClient, client_id), ClientNotFound))
    record(session, "client-removed", client_id=client_id)
