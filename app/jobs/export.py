"""The archive of everything that a person has here: JSON for programs, CSV for spreadsheets. It contains no secrets."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any, NamedTuple
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile

from sqlmodel import SQLModel, bindparam, case, col, inspect, select

from app.accounts.users import get_user
from app.core.templating import render
from app.jobs.claim import ClaimedJob
from app.ledger import csv_format
from app.models.audit import AuditEvent, AuditEventBase
from app.models.base import all_tables, utcnow
from app.models.chat import ChatMessage, ChatMessagePublic
from app.models.job import REQUESTABLE, Job, JobBase
from app.models.operation import Operation
from app.models.refresh_token import RefreshToken, SessionBase
from app.models.task import Task, TaskPublic
from app.models.types import UtcTime
from app.models.user import Identity, IdentityBase, UserPublic

BATCH = 1000


class _SessionRecord(SessionBase):
    id: UUID
    revoked_at: UtcTime | None
    revoke_reason: str | None


class _List(NamedTuple):
    """A list of the archive: the rows of a table that belong to its owner, with the columns that the schema shows, some
    of them replaced."""

    table: Any
    schema: type[SQLModel]
    is_mine: Any
    replaced: Mapping[str, Any] = {}


ME: Any = bindparam("me")  # the owner of the archive
# Admins' addresses are left out, as in OwnAuditEvent.
_OWN_ADDRESS = case((col(AuditEvent.actor_id) != col(AuditEvent.user_id), ""), else_=col(AuditEvent.address))
_LISTS = {  # the lists that `exported_lists` cannot derive from the tables
    "sessions": _List(RefreshToken, _SessionRecord, col(RefreshToken.user_id) == ME),
    "identities": _List(Identity, IdentityBase, col(Identity.user_id) == ME),
    "events": _List(AuditEvent, AuditEventBase, col(AuditEvent.user_id) == ME, {"address": _OWN_ADDRESS}),
    "tasks": _List(Task, TaskPublic, (col(Task.author_id) == ME) | (col(Task.assignee_id) == ME)),
    "messages": _List(ChatMessage, ChatMessagePublic, col(ChatMessage.author_id) == ME),
    "jobs": _List(Job, JobBase, (col(Job.owner_id) == ME) & col(Job.kind).in_(REQUESTABLE)),
}


def exported_lists() -> dict[str, _List]:
    """Each list but the operations: _LISTS, and every other table with an `owner_id` and a schema `…Public`."""
    all_tables()
    tables = {mapper.class_ for mapper in inspect(Operation).registry.mappers}
    every = dict(_LISTS)
    for table in tables - {Operation, *(listed.table for listed in _LISTS.values())}:
        schema = getattr(sys.modules[table.__module__], f"{table.__name__}Public", None)
        if schema and "owner_id" in table.model_fields:
            every[table.__tablename__] = _List(table, schema, col(table.owner_id) == ME)
    return every


def make_archive(claimed: ClaimedJob, operations: Iterable[list[Any]]) -> bytes:
    """Build the archive. Beside its compressed parts, no more than one batch of rows is in memory."""
    archive = BytesIO()
    with claimed.database.thread_scope() as session:
        account = UserPublic.of(get_user(session, claimed.owner_id))
    lists = exported_lists()
    with ZipFile(archive, "w", ZIP_DEFLATED) as files:
        readme = render("export.txt", email=account.email, now=utcnow(), others=lists.keys() - _LISTS)
        files.writestr("README.txt", readme)
        _write(files, "account", list(UserPublic.model_fields), [[account]])
        for name, listed in lists.items():
            shown = [field for field in listed.schema.model_fields if field in listed.table.model_fields]
            _write(files, name, shown, _read(claimed, listed, shown))
        # With the columns of the import, so that another account can import them.
        _write(files, "operations", csv_format.COLUMNS, operations)
    return archive.getvalue()


def _read(claimed: ClaimedJob, listed: _List, shown: Sequence[str]) -> Iterator[list[Any]]:
    """Read each batch in a short session of its own, in the order of the ids."""
    row_id = listed.table.id
    columns = [listed.replaced.get(name, getattr(listed.table, name)).label(name) for name in shown]
    statement = select(*columns).where(listed.is_mine).order_by(row_id).limit(BATCH)
    rows: Sequence[Any] | None = None
    while rows is None or len(rows) == BATCH:
        after = statement.where(row_id > rows[-1]["id"]) if rows else statement
        with claimed.database.thread_scope() as session:
            rows = session.exec(after, params={"me": claimed.owner_id}).mappings().all()
        yield [listed.schema.model_construct(**row) for row in rows]
        claimed.report_progress(0.0)


def _write(files: ZipFile, name: str, columns: Sequence[str], batches: Iterable[list[Any]]) -> None:
    """Write NAME.json, and the columns as NAME.csv. A zip file takes one file at a time, so the table waits on disk."""
    separator = ""
    with TemporaryFile() as table:
        table.write(csv_format.encode_lines([columns]))
        with files.open(f"{name}.json", "w", force_zip64=True) as objects:
            objects.write(b"[\n")
            for batch in batches:
                records = [record.model_dump(mode="json") for record in batch]
                table.write(csv_format.encode_lines([_cell(record[each]) for each in columns] for record in records))
                for record in records:
                    objects.write(f"{separator}{json.dumps(record, ensure_ascii=False)}".encode())
                    separator = ",\n"
            objects.write(b"\n]\n")
        table.seek(0)
        with files.open(f"{name}.csv", "w", force_zip64=True) as lines:
            shutil.copyfileobj(table, lines)


def _cell(value: Any) -> str:
    return csv_format.cell(value if value is None or isinstance(value, str) else json.dumps(value))
