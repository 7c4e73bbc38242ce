#!/usr/bin/env python3
"""A reference client, to read before you write yours: one device that stays signed in, works offline and syncs.

./scripts/phone.py --demo [--url https://muster.example] shows it at work (scripts/phone_demo.py).

Everything that must survive when the app is killed is in one SQLite file: the token pair (a real phone keeps it in its
keychain), the copy of the ledger with its revision, the queue of writes, and sign-outs still to be sent.
Related changes are one transaction.

Conflicts, where another device was first: fields that only one side changed are merged. Where both sides changed the
same field, or where this device deletes an operation that the other one changed, the other change stands. A deleted
operation stays deleted. If an id now belongs to an operation with another `created_at`, the server lost the one that
was meant, and the write is given up. No write is lost silently: `refused` lists those that were given up, for the
person to decide.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.command_line import Parser, use_project_python


def parse() -> argparse.Namespace:
    parser = Parser(
        prog="./scripts/phone.py", description="A reference client: read it, or see it at work with --demo."
    )
    parser.add_argument("--demo", action="store_true", help="sign in, go offline, lose responses, sync")
    parser.add_argument("--url", help="the running service (default: the one on this machine, at PORT)")
    options = parser.parse_args()
    if not options.demo:
        parser.error("there is nothing to run without --demo")
    return options


if __name__ == "__main__":
    parse()  # --help and refusals need nothing installed
    use_project_python()

import json
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any
from uuid import uuid4

import httpx

PATH = "/api/operations"
VERSION = "phone/1.0.0"  # a platform and a version: the server says if it is too old
FIELDS = ("type", "instrument_type", "figi", "quantity", "date")
ATTEMPTS = 5  # at a request while the server is busy
LONGEST_WAIT = 60  # seconds; if the server asks for more, the phone syncs again later

Row = dict[str, Any]

_TABLES = """
CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY, access TEXT, refresh TEXT, since INTEGER, link TEXT);
CREATE TABLE IF NOT EXISTS copy (id INTEGER PRIMARY KEY, row TEXT);
CREATE TABLE IF NOT EXISTS queue (
    number INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT, target INTEGER,
    key TEXT, refused TEXT, fields TEXT, base TEXT
);
CREATE TABLE IF NOT EXISTS sent (local INTEGER PRIMARY KEY, id INTEGER);
CREATE TABLE IF NOT EXISTS sign_outs (refresh TEXT);
INSERT OR IGNORE INTO state VALUES (1, NULL, NULL, 0, NULL);
"""
_APPEND = """
INSERT INTO queue (method, target, fields, key, base)
VALUES (?, ?, ?, ?, coalesce((SELECT row FROM copy WHERE id = ?), '{}')) RETURNING -number
"""
_QUEUED = "SELECT number, method, coalesce(target, -number), key, refused, fields, base FROM queue ORDER BY number"


class Offline(Exception):
    """No useful response arrived. Nothing is lost, and the device is still signed in: sync again later."""


class TooOld(Offline):
    """The server no longer supports this version. Show the way to the store: the update finds everything as it was."""


class SignedOut(Exception):
    """The server answered `invalid_grant`: the person has to sign in again. The copy and the queue stay."""


@dataclass(frozen=True)
class Write:
    """A queued write. `target` is the id of its operation, and `base` the operation as the person saw it."""

    number: int
    method: str
    target: int
    key: str
    refused: str | None  # why, in a sentence for a person
    fields: Row
    base: Row


class Phone:
    """One account on one device, in one file. Any number of threads of one process may share it."""

    def __init__(
        self,
        url: str,
        file: Path,
        *,
        page: int = 200,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`page` is the number of changes to request at once; `sleep` is called with the seconds to back off."""
        file.touch(mode=0o600)
        self._db = sqlite3.connect(file, check_same_thread=False)
        self._db.executescript(_TABLES)
        self._http = httpx.Client(base_url=url, headers={"Client-Version": VERSION}, transport=transport, timeout=30)
        self._page, self._sleep = page, sleep
        self._storing, self._refreshing, self._syncing = RLock(), Lock(), Lock()

    def close(self) -> None:
        """Close the file and the connections. A phone that is killed instead loses nothing."""
        self._http.close()
        self._db.close()

    def _read(self, statement: str, *values: object) -> list[Any]:
        with self._storing:
            return self._db.execute(statement, values).fetchall()

    def _store(self, statement: str, *values: object) -> None:
        with self._storing, self._db:
            self._db.execute(statement, values)

    # ---- The session ----

    @property
    def access(self) -> str:
        """The current access token."""
        [(access,)] = self._read("SELECT access FROM state")
        if access is None:
            raise SignedOut("Nobody is signed in.")
        return str(access)

    def sign_in(self, email: str, password: str, *, device: str = "phone") -> None:
        """Sign in, or raise SignedOut if the password is wrong. The list of sessions shows the name `device`."""
        self._begin(grant_type="password", username=email, password=password, device=device)

    def sign_in_by_code(self, code: str, *, verifier: str, client_id: str, redirect_uri: str) -> None:
        """Redeem the code that /authorize sent to the app. If the response is lost, repeat this within a minute."""
        form = {"code": code, "code_verifier": verifier, "client_id": client_id, "redirect_uri": redirect_uri}
        self._begin(grant_type="authorization_code", **form)

    def _begin(self, **form: str) -> None:
        with self._syncing, self._refreshing:
            self._revoke_signed_out()
            if self._read("SELECT 1 FROM state WHERE link IS NOT NULL"):
                self._empty()  # restart an unfinished fill: the server keeps tombstones only as long as a session lives
            self._obtain(**form)

    def refresh(self, stale: str) -> None:
        """Replace the access token `stale`, once for all threads: later callers find that it is replaced.

        If the response is lost, the next call sends the same refresh token again, which is safe.
        """
        with self._refreshing:
            if self.access != stale:
                return
            [(token,)] = self._read("SELECT refresh FROM state")
            try:
                self._obtain(grant_type="refresh_token", refresh_token=token)
            except SignedOut:
                self._store("UPDATE state SET access = NULL, refresh = NULL")
                raise

    def sign_out(self) -> None:
        """Sign out at once, even offline: the session is revoked when the server can be reached, at the latest by the
        next `sync` or `sign_in`. The copy and the queue stay for the same person; for another one, delete the file once
        `sync` raises SignedOut, not Offline."""
        with self._refreshing:
            with self._storing, self._db:
                self._db.execute("INSERT INTO sign_outs SELECT refresh FROM state WHERE refresh IS NOT NULL")
                self._db.execute("UPDATE state SET access = NULL, refresh = NULL")
            with suppress(Offline):
                self._revoke_signed_out()

    def _revoke_signed_out(self) -> None:
        """Revoke the sessions that were signed out offline. To revoke one twice does no harm."""
        for (token,) in self._read("SELECT refresh FROM sign_outs"):
            self._send("POST", "/api/auth/revoke", data={"token": token}).raise_for_status()
            self._store("DELETE FROM sign_outs WHERE refresh = ?", token)

    def _obtain(self, **form: str) -> None:
        """Request a token pair, and store it before anybody uses it. Only `invalid_grant` raises SignedOut."""
        answer = self._send("POST", "/api/auth/token", data=form)
        if answer.status_code == 400 and answer.json().get("error") == "invalid_grant":
            raise SignedOut(answer.json()["error_description"])
        pair = answer.raise_for_status().json()
        self._store("UPDATE state SET access = ?, refresh = ?", pair["access_token"], pair["refresh_token"])

    def call(self, method: str, url: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """Send a request as this person, and replace an access token that has expired."""
        for _ in range(2):
            access = self.access
            answer = self._send(method, url, headers={**(headers or {}), "Authorization": f"Bearer {access}"}, **more)
            if answer.status_code != 401:
                return answer
            self.refresh(access)
        raise Offline("The server rejected a new access token. The next refresh will show why.")

    def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        """Send a request, and retry it after a 408, 429 or 5xx, as late as the server asks."""
        attempt = 1
        while True:
            try:
                answer = self._http.request(method, url, **more)
            except httpx.RequestError as error:
                raise Offline(f"The server cannot be reached: {error!r}.") from error
            if answer.status_code not in {408, 429} and answer.status_code < 500:
                break
            asked = answer.headers.get("Retry-After", "")
            seconds = int(asked) if asked.isdecimal() else 2**attempt
            if attempt == ATTEMPTS or seconds > LONGEST_WAIT:
                raise Offline(
                    f"The server or the network is busy ({answer.status_code}) for at least {seconds} seconds."
                )
            attempt += 1
            self._sleep(seconds + random.random())  # noqa: S311  # it only keeps phones from returning all at once
        if answer.content and "json" not in answer.headers.get("Content-Type", ""):
            raise Offline("The response is not the server's, but perhaps the login page of a public network.")
        if answer.status_code == 426:
            raise TooOld(answer.json()["detail"])
        return answer

    # ---- What the person does, online or not ----

    def add(self, **fields: Any) -> int:
        """Queue a new operation. Its id is negative until it is sent, and remains valid afterward."""
        return self._queue("POST", None, fields)

    def edit(self, operation_id: int, **fields: Any) -> None:
        """Queue a change of these fields, in the format of the server, so that the two can be compared."""
        self._queue("PATCH", operation_id, fields)

    def delete(self, operation_id: int) -> None:
        """Queue a deletion. Like `edit`, it raises KeyError if the phone has no such operation."""
        self._queue("DELETE", operation_id, {})

    def _queue(self, method: str, target: int | None, fields: Row) -> int:
        with self._storing, self._db:
            [(target,)] = self._read("SELECT coalesce((SELECT id FROM sent WHERE local = ?1), ?1)", target)
            if target is not None and target not in self.rows:
                raise KeyError(target)
            entry = (method, target, json.dumps(fields), str(uuid4()), target)
            [(local,)] = self._read(_APPEND, *entry)
            return int(local)

    @property
    def copy(self) -> dict[int, Row]:
        """The operations by id, as the server had them at the last sync."""
        return {number: json.loads(row) for number, row in self._read("SELECT id, row FROM copy")}

    @property
    def rows(self) -> dict[int, Row]:
        """The operations to show: the copy with the queue applied."""
        with self._storing:
            rows, waiting = self.copy, self.waiting
        for write in waiting:
            if write.method == "DELETE":
                rows.pop(write.target, None)
            elif write.method == "POST" or write.target in rows:
                rows[write.target] = {**rows.get(write.target, {}), **write.fields}
        return rows

    @property
    def waiting(self) -> list[Write]:
        """The writes that are still to be sent, in order."""
        return [write for write in self._writes() if write.refused is None]

    @property
    def refused(self) -> list[Write]:
        """The writes that the server rejected or that lost a conflict. `dismiss` removes one."""
        return [write for write in self._writes() if write.refused is not None]

    def dismiss(self, write: Write) -> None:
        self._store("DELETE FROM queue WHERE number = ?", write.number)

    def _writes(self) -> list[Write]:
        return [Write(*row[:5], *map(json.loads, row[5:])) for row in self._read(_QUEUED)]

    # ---- Sync ----

    def sync(self) -> None:
        """Send the queue in order, then fetch the changes of other devices. After Offline, sync again to continue."""
        with self._syncing:
            self._revoke_signed_out()
            while waiting := self.waiting:
                self._deliver(waiting[0])
            self._pull()

    def _deliver(self, write: Write) -> None:
        """Send a write. It may be sent twice: the Idempotency-Key prevents a second row, If-Match a second change."""
        if write.method == "POST":
            answer = self.call("POST", PATH, json=write.fields, headers={"Idempotency-Key": write.key})
        else:
            tag = f'"{write.base["owner_id"]}.{write.base["revision"]}"'
            body = write.fields or None
            answer = self.call(write.method, f"{PATH}/{write.target}", json=body, headers={"If-Match": tag})
        if answer.is_success:
            self._done(write, answer.json() if answer.content else None)
        elif answer.status_code == 404 and write.method == "DELETE":
            self._done(write, None)  # deleted by us, and the response was lost, or by another device
        elif answer.status_code == 412:
            self._merge(write)
        elif answer.status_code == 409:
            raise Offline("Two changes collided. Sync again later.")
        else:
            self._refuse(write, answer.json()["detail"])

    def _done(self, write: Write, row: Row | None) -> None:
        """Remove a write from the queue. Later writes to the same operation get its real id and its new state."""
        with self._storing, self._db:
            self._db.execute("DELETE FROM queue WHERE number = ?", (write.number,))
            if row is None:
                self._db.execute("DELETE FROM copy WHERE id = ?", (write.target,))
                return
            state = (row["id"], json.dumps(row))
            self._db.execute("UPDATE queue SET target = ?, base = ? WHERE target = ?", (*state, write.target))
            if write.method == "POST":
                self._db.execute("INSERT INTO sent VALUES (?, ?)", (write.target, row["id"]))
            # A repeated create returns its first response. Changes since then arrive with the pull.
            self._db.execute("INSERT OR REPLACE INTO copy VALUES (?, ?)", state)

    def _merge(self, write: Write) -> None:
        """412: another device was first, or the response to us was lost. The rules are at the top of this file."""
        answer = self.call("GET", f"{PATH}/{write.target}")
        if answer.status_code == 404:
            return  # sent again, the write gets a 404 too
        theirs, base = answer.raise_for_status().json(), write.base
        if theirs["created_at"] != base["created_at"]:
            self._refuse(write, "The operation no longer exists.")  # the server lost it, and its id is another's now
            return
        ours = {**base, **write.fields}
        if all(theirs[name] in (base[name], ours[name]) for name in write.fields or FIELDS):
            self._store("UPDATE queue SET base = ? WHERE number = ?", json.dumps(theirs), write.number)
        else:
            self._refuse(write, "It was changed on another device in the meantime.")

    def _refuse(self, write: Write, why: str) -> None:
        """Give up a write. A create takes the later writes to its operation with it, which will never get an id."""
        self._store("UPDATE queue SET refused = ? WHERE number = ? OR target = ?", why, write.number, -write.number)

    def _pull(self) -> None:
        """Fetch changes page by page, each in one transaction with the position to continue from.

        `link` also records when a fill began.
        """
        more, refilled = True, False
        while more:
            [(since, link)] = self._read("SELECT since, link FROM state")
            start = f"{PATH}/changes?since={since}&limit={self._page}" + ("" if since else "&full=true")
            answer = self.call("GET", link or start)
            if answer.status_code == 410:
                self._empty()
                if refilled:
                    raise Offline("The ledger changes faster than it can be copied. Sync again later.")
                refilled = True
                continue
            page = answer.raise_for_status().json()
            with self._storing, self._db:
                for change in page["changes"]:
                    if "deleted_at" in change:
                        self._db.execute("DELETE FROM copy WHERE id = ?", (change["id"],))
                    else:
                        row = (change["id"], json.dumps(change))
                        self._db.execute("INSERT OR REPLACE INTO copy VALUES (?, ?)", row)
                following = answer.links.get("next", {}).get("url")
                self._db.execute("UPDATE state SET since = ?, link = ?", (page["next"], following))
            more = page["more"]

    def _empty(self) -> None:
        """410, resync-required: empty the copy, so that the next pull fills it from the start. The queue stays."""
        with self._storing, self._db:
            self._db.execute("DELETE FROM copy")
            self._db.execute("UPDATE state SET since = 0, link = NULL")


def main() -> None:
    options = parse()
    from scripts.phone_demo import demo  # noqa: PLC0415  # it imports this file

    demo(options.url)


if __name__ == "__main__":
    main()
