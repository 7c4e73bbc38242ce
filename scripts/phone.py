#!/usr/bin/env python3
"""A reference client, to read before you write yours: one device that stays signed in, works offline and syncs.

./scripts/phone.py --demo [--url https://muster.example] shows it at work (scripts/phone_demo.py).

All that a killed app must not lose is in one SQLite file: the pair of tokens (a real phone keeps it in its keychain),
the copy of the ledger and how far it goes, and the queue of writes. What belongs together is one transaction.

Conflicts, where another device was first: fields that only one side changed are merged; where both changed the same
field, theirs stands; so it does where a row was to be deleted that they changed, and a deleted row stays deleted.
What was given up for that is never lost silently: `refused` lists it, for the person to decide.
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
    parser.add_argument("--demo", action="store_true", help="sign in, go offline, lose answers, sync")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the running service (default: %(default)s)")
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
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any
from uuid import uuid4

import httpx

PATH = "/api/operations"
FIELDS = ("type", "instrument_type", "figi", "quantity", "date")
ATTEMPTS = 5  # of a request that the server has no time for
LONGEST_WAIT = 60  # seconds; who is sent away for longer syncs again later

Row = dict[str, Any]

_TABLES = """
CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY, access TEXT, refresh TEXT, since INTEGER, link TEXT);
CREATE TABLE IF NOT EXISTS copy (id INTEGER PRIMARY KEY, row TEXT);
CREATE TABLE IF NOT EXISTS queue (
    number INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT, target INTEGER,
    key TEXT, refused TEXT, fields TEXT, base TEXT
);
CREATE TABLE IF NOT EXISTS sent (local INTEGER PRIMARY KEY, id INTEGER);
INSERT OR IGNORE INTO state VALUES (1, NULL, NULL, 0, NULL);
"""
_APPEND = """
INSERT INTO queue (method, target, fields, key, base)
VALUES (?, ?, ?, ?, coalesce((SELECT row FROM copy WHERE id = ?), '{}')) RETURNING -number
"""
_QUEUED = "SELECT number, method, coalesce(target, -number), key, refused, fields, base FROM queue ORDER BY number"


class Offline(Exception):
    """No answer, or none that helps: nothing is lost, sync again later. It never means signed out."""


class SignedOut(Exception):
    """The server said `invalid_grant`: the person has to sign in. Copy and queue stay."""


@dataclass(frozen=True)
class Write:
    """A queued write. `target` is the id of its operation, `base` the operation as it was when the person decided."""

    number: int
    method: str
    target: int
    key: str
    refused: str | None  # why, in a sentence for a person
    fields: Row
    base: Row


class Phone:
    """One account on one device; any number of threads of one process share it. One file for each account."""

    def __init__(
        self,
        url: str,
        file: Path,
        *,
        page: int = 200,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`page` is how many changes are asked for at once; `sleep` is called with the seconds to back off."""
        file.touch(mode=0o600)
        self._db = sqlite3.connect(file, check_same_thread=False)
        self._db.executescript(_TABLES)
        self._http = httpx.Client(base_url=url, transport=transport, timeout=30)
        self._page, self._sleep = page, sleep
        self._storing, self._refreshing, self._syncing = RLock(), Lock(), Lock()

    def close(self) -> None:
        """Nothing is left to save: a phone that is killed instead loses nothing."""
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
        """The present access token."""
        [(access,)] = self._read("SELECT access FROM state")
        if access is None:
            raise SignedOut("Nobody is signed in.")
        return str(access)

    def sign_in(self, email: str, password: str, *, device: str = "phone") -> None:
        """SignedOut if the password is wrong. `device` is the name that the list of sessions shows."""
        with self._syncing, self._refreshing:
            if self._read("SELECT 1 FROM state WHERE link IS NOT NULL"):
                self._empty()  # a fill starts anew: the server remembers deletions only as long as a session can live
            self._obtain(grant_type="password", username=email, password=password, device=device)

    def refresh(self, stale: str) -> None:
        """Replace the access token `stale`, once for all threads: who comes late finds that it was done.

        A lost answer leaves the pair as it is, and the next call sends the same refresh token again: that is safe.
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
        """Copy and queue stay for the same person; delete the file for another one."""
        with self._refreshing:
            [(token,)] = self._read("SELECT refresh FROM state")
            if token is not None:
                self._send("POST", "/api/auth/revoke", data={"token": token}).raise_for_status()
                self._store("UPDATE state SET access = NULL, refresh = NULL")

    def _obtain(self, **form: str) -> None:
        """A pair, stored in one write before anybody uses it. Nothing but `invalid_grant` is SignedOut."""
        answer = self._send("POST", "/api/auth/token", data=form)
        if answer.status_code == 400 and answer.json().get("error") == "invalid_grant":
            raise SignedOut(answer.json()["error_description"])
        pair = answer.raise_for_status().json()
        self._store("UPDATE state SET access = ?, refresh = ?", pair["access_token"], pair["refresh_token"])

    def call(self, method: str, url: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """Any request that is answered in JSON, as this person: an access token that has expired is replaced."""
        for _ in range(2):
            access = self.access
            answer = self._send(method, url, headers={**(headers or {}), "Authorization": f"Bearer {access}"}, **more)
            if answer.status_code != 401:
                return answer
            self.refresh(access)
        raise Offline("A new access token was refused: the next refresh will tell why.")

    def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        """What the server answers once it has time: 429, 503 and their like are waited out, as long as they say."""
        attempt = 1
        while True:
            try:
                answer = self._http.request(method, url, **more)
            except httpx.RequestError as error:
                raise Offline(f"No answer came: {error!r}.") from error
            if answer.status_code != 429 and answer.status_code < 500:
                break
            asked = answer.headers.get("Retry-After", "")
            seconds = int(asked) if asked.isdecimal() else 2**attempt
            if attempt == ATTEMPTS or seconds > LONGEST_WAIT:
                raise Offline(f"The server is busy ({answer.status_code}), for {seconds} seconds at least.")
            attempt += 1
            self._sleep(seconds + random.random())  # noqa: S311  # only so that phones do not come back all at once
        if answer.content and "json" not in answer.headers.get("Content-Type", ""):
            raise Offline("Somebody else answered, such as a hotel's login page.")
        return answer

    # ---- What the person does, online or not ----

    def add(self, **fields: Any) -> int:
        """Queue a new operation. Its id is below 0 until it is sent, and is understood ever after."""
        return self._queue("POST", None, fields)

    def edit(self, operation_id: int, **fields: Any) -> None:
        """Queue a change of these fields, written as the server writes them, so that they can be compared with its."""
        self._queue("PATCH", operation_id, fields)

    def delete(self, operation_id: int) -> None:
        """Queue it. KeyError, here and in `edit`, if the phone shows no such operation."""
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
        """What to show: the copy with the queue applied."""
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
        """What is still to be sent, in its order."""
        return [write for write in self._writes() if write.refused is None]

    @property
    def refused(self) -> list[Write]:
        """What the server refused, or another device's change stands against. `dismiss` takes it off."""
        return [write for write in self._writes() if write.refused is not None]

    def dismiss(self, write: Write) -> None:
        self._store("DELETE FROM queue WHERE number = ?", write.number)

    def _writes(self) -> list[Write]:
        return [Write(*row[:5], *map(json.loads, row[5:])) for row in self._read(_QUEUED)]

    # ---- Sync ----

    def sync(self) -> None:
        """Send the queue in its order, then take in what others changed. After Offline it goes on where it was."""
        with self._syncing:
            while waiting := self.waiting:
                self._deliver(waiting[0])
            self._pull()

    def _deliver(self, write: Write) -> None:
        """Send a write, again if need be: the key makes one row of a create, If-Match one change of an edit."""
        if write.method == "POST":
            answer = self.call("POST", PATH, json=write.fields, headers={"Idempotency-Key": write.key})
        else:
            tag = f'"{write.base["owner_id"]}.{write.base["revision"]}"'
            body = write.fields or None
            answer = self.call(write.method, f"{PATH}/{write.target}", json=body, headers={"If-Match": tag})
        if answer.is_success:
            self._done(write, answer.json() if answer.content else None)
        elif answer.status_code == 404 and write.method == "DELETE":
            self._done(write, None)  # by us, and the answer was lost, or by somebody else
        elif answer.status_code == 412:
            self._merge(write)
        elif answer.status_code == 409:
            raise Offline("Two changes met: the same again later.")
        else:
            self._refuse(write, answer.json()["detail"])

    def _done(self, write: Write, row: Row | None) -> None:
        """Off the queue. What is queued for the same operation goes on from its new state, and under its real id."""
        with self._storing, self._db:
            self._db.execute("DELETE FROM queue WHERE number = ?", (write.number,))
            if row is None:
                self._db.execute("DELETE FROM copy WHERE id = ?", (write.target,))
                return
            state = (row["id"], json.dumps(row))
            self._db.execute("UPDATE queue SET target = ?, base = ? WHERE target = ?", (*state, write.target))
            if write.method == "POST":
                self._db.execute("INSERT INTO sent VALUES (?, ?)", (write.target, row["id"]))
            # A repeated create gets its first answer. What became of it since then comes with the pull, later.
            self._db.execute("INSERT OR REPLACE INTO copy VALUES (?, ?)", state)

    def _merge(self, write: Write) -> None:
        """412: another device was first, or we were and the answer was lost. The rule is at the top of this file."""
        answer = self.call("GET", f"{PATH}/{write.target}")
        if answer.status_code == 404:
            return  # the write, sent again, is told so too
        theirs, base = answer.raise_for_status().json(), write.base
        ours = {**base, **write.fields}
        if all(theirs[name] in (base[name], ours[name]) for name in write.fields or FIELDS):
            self._store("UPDATE queue SET base = ? WHERE number = ?", json.dumps(theirs), write.number)
        else:
            self._refuse(write, "It was changed on another device meanwhile.")

    def _refuse(self, write: Write, why: str) -> None:
        """With a create, what is queued for its operation: it has no id and will get none."""
        self._store("UPDATE queue SET refused = ? WHERE number = ? OR target = ?", why, write.number, -write.number)

    def _pull(self) -> None:
        """Page by page, each in one transaction with the place to go on from. `link` also says when a fill began."""
        more, refilled = True, False
        while more:
            [(since, link)] = self._read("SELECT since, link FROM state")
            start = f"{PATH}/changes?since={since}&limit={self._page}" + ("" if since else "&full=true")
            answer = self.call("GET", link or start)
            if answer.status_code == 410:
                self._empty()
                if refilled:
                    raise Offline("What changes overtakes the copy again and again: later.")
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
        """410, resync-required: the next pull fills the copy from the start. The queue stays."""
        with self._storing, self._db:
            self._db.execute("DELETE FROM copy")
            self._db.execute("UPDATE state SET since = 0, link = NULL")


def main() -> None:
    options = parse()
    from scripts.phone_demo import demo  # noqa: PLC0415  # it imports this file

    demo(options.url)


if __name__ == "__main__":
    main()
