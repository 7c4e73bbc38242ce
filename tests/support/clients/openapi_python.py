"""A session with the client of openapi-python-client. Arguments: the address, an e-mail address."""

import sys
from datetime import UTC, datetime
from io import BytesIO

from muster_client import AuthenticatedClient, Client
from muster_client.api.account import read_me
from muster_client.api.auth import register, revoke, token
from muster_client.api.operations import (
    create_operation,
    delete_operation,
    import_operations,
    list_changes,
    list_operations,
)
from muster_client.models import OperationCreate, RevocationForm, TokenForm, TokenFormGrantType, UserCreate
from muster_client.types import UNSET, File

url, email = sys.argv[1:]
password = "violet-tandem-harbor"  # of an account that lives for one test
date = datetime(2026, 11, 24, 12, tzinfo=UTC)
operation = OperationCreate(type_="buy", figi="BBG000B9XRY4", quantity="0.10", date=date)
anybody = Client(url)

assert register.sync(client=anybody, body=UserCreate(email=email, password=password)).email == email
form = TokenForm(grant_type=TokenFormGrantType.PASSWORD, username=email, password=password)
pair = token.sync(client=anybody, body=form)
me = AuthenticatedClient(url, pair.access_token)

first, second = (create_operation.sync(client=me, body=operation, idempotency_key="0b0d7f5e") for _ in range(2))
assert (first.id, first.date, first.quantity) == (second.id, date, "0.1")
for _ in range(3):
    create_operation.sync(client=me, body=operation)
refused = create_operation.sync(
    client=me, body=OperationCreate(type_="buy", figi="BBG000B9XRY4", quantity="0", date=date)
)
assert (refused.status, refused.errors[0].loc) == (422, ["body", "quantity"])

ids, after = [], UNSET
while after is not None:
    page = list_operations.sync_detailed(client=me, limit=3, after=after)
    ids += [row.id for row in page.parsed]
    after = page.headers.get("Next-Cursor")
assert len(set(ids)) == 4

csv = BytesIO(b"type,figi,quantity,date\nbuy,X,1,2026-11-24T12:00:00Z\n")
imported = import_operations.sync(client=me, body=File(payload=csv))
assert imported.created == 1

assert delete_operation.sync_detailed(ids[0], client=me).status_code == 204
changes = list_changes.sync(client=me, since=0)
assert [(change.quantity, bool(change.deleted_at)) for change in changes.changes] == [
    *[("0.1", False)] * 3,
    ("1", False),
    (UNSET, True),
]

form = TokenForm(grant_type=TokenFormGrantType.REFRESH_TOKEN, refresh_token=pair.refresh_token)
refreshed = token.sync(client=anybody, body=form)
assert refreshed.refresh_token != pair.refresh_token
me = AuthenticatedClient(url, refreshed.access_token)
assert read_me.sync(client=me).email == email

revoke.sync_detailed(client=anybody, body=RevocationForm(refreshed.refresh_token))
assert read_me.sync_detailed(client=me).status_code == 401
