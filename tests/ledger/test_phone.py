"""The reference client: killed, offline, sent away, overtaken by other devices; and its demonstration, as a process."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.models.base import utcnow
from scripts.demo import DEMO_EMAIL, DEMO_PASSWORD
from scripts.phone import PATH, VERSION, Offline, Phone, SignedOut, TooOld
from scripts.phone_demo import DEMO_CREDENTIALS
from tests.support.concurrency import at_once
from tests.support.databases import ROOT
from tests.support.ledgers import OPERATION, Ledger
from tests.support.oauth_clients import App
from tests.support.phones import Device, device_of
from tests.support.processes import fork_script
from tests.support.servers import Muster, Tokens, free_port, wait_for
from tests.support.sessions import row_of

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

TOKEN = "/api/auth/token"
# What a phone does if it is killed after the server recorded its operation and before the response arrived.
KILLED = """
import os, signal, sys
from pathlib import Path
from scripts.phone import Phone
from scripts.phone_demo import LossyTransport

class Killed(LossyTransport):
    def handle_request(self, request):
        answer = super().handle_request(request)
        os.kill(os.getpid(), signal.SIGKILL)
        return answer

phone = Phone(sys.argv[1], Path(sys.argv[2]), transport=Killed())
phone.edit(phone.add(type="buy", figi="killed", quantity="1", date="2026-11-24T12:00:00Z"), quantity="2")
phone.sync()
"""


@pytest.fixture
def device(muster: Muster, tmp_path: Path) -> Iterator[Device]:
    with device_of(Ledger(muster), tmp_path) as device:
        yield device


@pytest.fixture
def row(device: Device) -> int:
    """The id of an operation that the phone has."""
    row = device.ledger.add()
    device.phone.sync()
    return int(row["id"])


def lose(device: Device, *answers: int) -> None:
    """Sync while the responses of these numbers get lost."""
    device.network.lost = set(answers)
    with pytest.raises(Offline):
        device.phone.sync()


# ---- The file on disk ----


def test_the_file_is_the_owners_alone(device: Device) -> None:
    assert device.file.stat().st_mode & 0o777 == 0o600


def test_a_phone_that_is_killed_before_its_response_arrives_makes_one_row(device: Device, tmp_path: Path) -> None:
    device.phone.close()
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = (device.ledger.muster.url, str(device.file))
    assert fork_script(script, *arguments, environment={**os.environ})[0] == -signal.SIGKILL
    assert [row["quantity"] for row in device.ledger.all()] == ["1"]
    device.open()
    assert [(write.method, write.target) for write in device.phone.waiting] == [("POST", -1), ("PATCH", -1)]
    assert [row["quantity"] for row in device.phone.rows.values()] == ["2"]
    device.phone.sync()
    assert [row["quantity"] for row in device.ledger.all()] == ["2"]
    assert device.has_all()
    assert device.ledger.revision == 2


def test_queued_writes_are_shown_at_once_and_their_temporary_ids_stay_valid(device: Device) -> None:
    phone = device.phone
    first, second, third = (phone.add(**{**OPERATION, "figi": figi}) for figi in "abc")
    phone.edit(first, quantity="3")
    phone.delete(second)
    assert {number: (row["figi"], row["quantity"]) for number, row in phone.rows.items()} == {
        first: ("a", "3"),
        third: ("c", "10"),
    }
    assert phone.copy == {}
    phone.sync()
    assert phone.rows == phone.copy
    assert device.has_all()
    phone.edit(first, type="buy")
    phone.delete(third)
    phone.sync()
    assert [(row["figi"], row["type"]) for row in device.ledger.all()] == [("a", "buy")]
    for gone in (second, third, 0):
        with pytest.raises(KeyError):
            phone.edit(gone, type="sell")


# ---- Lost responses ----


@pytest.mark.both_databases
def test_each_write_whose_response_was_lost_is_applied_once(device: Device, row: int) -> None:
    phone, ledger = device.phone, device.ledger
    phone.add(**OPERATION)
    lose(device, 0)
    device.reopen()
    phone = device.phone
    phone.edit(row, quantity="3", figi="new")
    lose(device, 1)  # of the edit; the create is repeated first
    phone.sync()
    phone.delete(row)
    lose(device, 0)
    phone.sync()
    assert (phone.waiting, phone.refused) == ([], [])
    assert device.has_all()
    assert (len(ledger.all()), ledger.revision) == (1, 4)


def test_an_edit_whose_response_was_lost_does_not_undo_what_another_device_did_since(device: Device, row: int) -> None:
    device.phone.edit(row, quantity="3")
    lose(device, 0)
    device.ledger.patch(row, quantity="4")
    device.phone.sync()
    assert [write.fields for write in device.phone.refused] == [{"quantity": "3"}]
    assert device.phone.rows[row]["quantity"] == "4"


@pytest.mark.parametrize("answer", range(5))
def test_a_fill_continues_after_a_lost_response(device: Device, answer: int) -> None:
    device.ledger.copy(device.ledger.add(), 11)
    lose(device, answer) if answer < 4 else device.phone.sync()
    device.reopen()
    device.phone.sync()
    assert device.has_all()
    assert len(device.phone.copy) == 12


# ---- Conflicts ----


def test_fields_that_only_one_side_changed_are_merged(device: Device, row: int) -> None:
    device.phone.edit(row, quantity="3")
    device.phone.edit(row, figi="ours")
    device.ledger.patch(row, type="buy")
    device.phone.sync()
    kept = device.ledger.get(row).json()
    assert (kept["quantity"], kept["figi"], kept["type"]) == ("3", "ours", "buy")
    assert device.phone.refused == []
    assert device.has_all()


def test_in_a_conflict_the_other_devices_version_stands_and_ours_is_listed(device: Device, row: int) -> None:
    phone, ledger = device.phone, device.ledger
    edited, deleted = ledger.add()["id"], ledger.add()["id"]
    phone.sync()
    phone.edit(row, quantity="3")
    phone.delete(edited)
    phone.edit(deleted, quantity="3")
    device.phone.add(**{**OPERATION, "quantity": "0"})
    phone.edit(-phone.waiting[-1].number, quantity="1")
    ledger.patch(row, quantity="4")
    ledger.patch(edited, figi="theirs")
    ledger.delete(deleted)
    phone.sync()
    assert phone.waiting == []
    assert [write.method for write in phone.refused] == ["PATCH", "DELETE", "PATCH", "POST", "PATCH"]
    assert all(str(write.refused).endswith(".") for write in phone.refused)
    assert phone.rows == phone.copy
    assert {number: row["quantity"] for number, row in phone.rows.items()} == {row: "4", edited: "10"}
    assert device.has_all()
    for write in phone.refused:
        phone.dismiss(write)
    assert phone.refused == []


def test_another_operation_with_the_same_id_is_neither_changed_nor_deleted(device: Device, row: int) -> None:
    """A server that lost its data, and was not restored as it should be, issues ids again."""
    device.phone.edit(row, quantity="3")
    device.phone.delete(row)
    device.ledger.muster.sql(
        "UPDATE operation SET revision = 99, created_at = :now WHERE id = :id", now=str(utcnow()), id=row
    )
    device.phone.sync()
    assert [write.method for write in device.phone.refused] == ["PATCH", "DELETE"]
    assert device.ledger.get(row).json()["quantity"] == OPERATION["quantity"]


def test_an_operation_deleted_on_both_sides_stays_deleted(device: Device, row: int) -> None:
    device.phone.delete(row)
    device.ledger.delete(row)
    device.phone.sync()
    assert (device.phone.copy, device.phone.refused, device.phone.waiting) == ({}, [], [])


@pytest.mark.both_databases
def test_a_copy_that_cannot_be_brought_up_to_date_is_filled_again_and_the_queue_stays(device: Device, row: int) -> None:
    ledger, phone = device.ledger, device.phone
    device.ledger.copy(ledger.get(row).json(), 8)
    device.pull(1)
    phone.add(**OPERATION)
    ledger.delete(row)
    ledger.purge()
    lose(device, 2)  # of the create, the 410, and the first page
    assert phone.copy == {}
    phone.sync()
    assert phone.waiting == []
    assert device.has_all()
    assert len(phone.copy) == 9


def test_a_fill_that_a_purge_overtakes_begins_again(device: Device) -> None:
    ledger, phone = device.ledger, device.phone
    rows = [ledger.add() for _ in range(9)]
    device.pull(2)
    ledger.delete(rows[0]["id"])
    ledger.purge()
    phone.sync()
    assert device.has_all()
    assert rows[0]["id"] not in phone.copy


# ---- The session ----


@pytest.mark.both_databases
def test_ten_threads_whose_token_has_expired_make_one_refresh(device: Device) -> None:
    phone, stale = device.phone, device.expire()
    before = device.network.sent("POST", TOKEN)
    answers = at_once(*[lambda: phone.call("GET", PATH)] * 10)
    assert {answer.status_code for answer in answers} == {200}
    assert device.network.sent("POST", TOKEN) == before + 1
    assert phone.access != stale
    assert row_of(device.ledger.muster, Tokens(access_token=phone.access)).generation == 2


def test_a_refresh_whose_response_was_lost_is_made_again_with_the_same_token(device: Device) -> None:
    device.expire()
    lose(device, 1)  # after the 401
    device.reopen()
    device.phone.sync()
    assert device.network.sent("POST", TOKEN) == 1
    assert row_of(device.ledger.muster, Tokens(access_token=device.phone.access)).generation == 2


def test_a_lost_network_does_not_sign_the_phone_out_and_a_revoked_session_does(device: Device, row: int) -> None:
    phone, muster = device.phone, device.ledger.muster
    device.expire()
    phone.edit(row, quantity="3")
    with closing(Phone(f"http://127.0.0.1:{free_port()}", device.file)) as away, pytest.raises(Offline):
        away.sync()
    others = muster.client.delete("/api/users/me/sessions", headers=device.ledger.tokens.bearer)
    assert others.status_code == 204
    with pytest.raises(SignedOut):
        phone.sync()
    with pytest.raises(SignedOut):
        phone.sync()
    assert [write.fields for write in phone.waiting] == [{"quantity": "3"}]
    with pytest.raises(SignedOut):
        phone.sign_in(device.ledger.account.email, "not the password")
    phone.sign_in(device.ledger.account.email, device.ledger.account.password)
    phone.sync()
    assert device.ledger.get(row).json()["quantity"] == "3"


def test_a_sign_out_while_offline_takes_effect_at_once_and_reaches_the_server_later(device: Device, row: int) -> None:
    device.phone.edit(row, quantity="3")
    access = Tokens(access_token=device.phone.access)
    with closing(Phone(f"http://127.0.0.1:{free_port()}", device.file)) as away:
        away.sign_out()
        with pytest.raises(SignedOut):
            away.call("GET", PATH)
        with pytest.raises(Offline):
            away.sync()
    me = device.ledger.muster.client.get("/api/users/me", headers=access.bearer)
    assert me.status_code == 200
    device.reopen()
    with pytest.raises(SignedOut):
        device.phone.sync()
    me = device.ledger.muster.client.get("/api/users/me", headers=access.bearer)
    assert me.status_code == 401
    device.phone.sign_in(device.ledger.account.email, device.ledger.account.password)
    device.phone.sync()
    assert device.ledger.get(row).json()["quantity"] == "3"
    assert device.network.sent("POST", "/api/auth/revoke") == 1


def test_a_phone_signs_in_by_code_and_repeats_it_when_the_response_was_lost(device: Device, row: int) -> None:
    account, phone = device.ledger.account, device.phone
    app = App(account.muster)
    phone.sign_out()
    code = app.code(account)
    assert app.exchange(code).status_code == 200  # which the phone never received
    phone.sign_in_by_code(code, verifier=app.verifier, client_id=app.id, redirect_uri=app.redirect_uri)
    phone.sync()
    phone.refresh(phone.access)
    assert row in phone.copy
    with pytest.raises(SignedOut):
        phone.sign_in_by_code(code, verifier="A" * 43, client_id=app.id, redirect_uri=app.redirect_uri)


def test_a_captive_portal_is_not_mistaken_for_the_server(device: Device, row: int) -> None:
    def page(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, html="<h1>Welcome! Your room number, please</h1>")

    device.phone.edit(row, quantity="3")
    with closing(Phone("http://hotel", device.file, transport=httpx.MockTransport(page))) as away:
        with pytest.raises(Offline):
            away.sync()
        with pytest.raises(Offline):
            away.refresh(away.access)
    device.phone.sync()
    assert device.ledger.get(row).json()["quantity"] == "3"


# ---- A busy server ----


def test_an_upload_that_stalls_and_a_version_that_is_too_old_keep_the_tokens_and_the_queue(
    device: Device, row: int
) -> None:
    answers = iter([408, 426, 426])

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Client-Version"] == VERSION
        return httpx.Response(next(answers), json={"detail": "Update the app."})

    device.phone.edit(row, quantity="3")
    waits: list[float] = []
    network = httpx.MockTransport(answer)
    with closing(Phone("http://muster", device.file, transport=network, sleep=waits.append)) as old:
        with pytest.raises(TooOld, match="Update the app"):
            old.sync()
        with pytest.raises(TooOld):
            old.refresh(old.access)
    assert len(waits) == 1, "after the 408"
    device.phone.sync()
    assert device.ledger.get(row).json()["quantity"] == "3"


def test_the_server_finds_the_phone_too_old(serve: Callable[..., Muster], tmp_path: Path) -> None:
    muster = serve(MIN_CLIENT_VERSIONS="phone/1.0.1")
    with closing(Phone(muster.url, tmp_path / "old.db")) as old, pytest.raises(TooOld):
        old.sign_in("ada@example.com", "whatever it is")


def test_the_phone_waits_for_a_busy_database(serve: Callable[..., Muster], tmp_path: Path) -> None:
    muster = serve(app="tests.support.apps.extra_routes:app", DB_SLOTS="1", SLOT_TIMEOUT="0.5")
    go_on = tmp_path / "go on"
    with ThreadPoolExecutor(1) as pool, device_of(Ledger(muster), tmp_path) as device:

        def until_it_is_free(_seconds: float) -> None:
            go_on.touch()
            holder.result()

        device.sleep = until_it_is_free
        holder = pool.submit(muster.client.get, "/test/held", params={"until": str(go_on)})
        try:
            wait_for(lambda: muster.client.get("/test/held?seconds=0").status_code == 503, what="a busy database")
            device.phone.sync()
        finally:
            go_on.touch()
        assert [2 <= seconds < 3 for seconds in device.waits] == [True]  # Retry-After, and a little


def test_the_phone_honors_retry_after(serve: Callable[..., Muster], tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")

    def pass_time(seconds: float) -> None:
        clock.write_text(str(float(clock.read_text()) + seconds))

    moved_clock = "tests.support.apps.moved_clock:app"
    ledger = Ledger(serve(app=moved_clock, MOVED_CLOCK=str(clock), LIMIT_DEFAULT="4/minute"))
    ledger.copy(ledger.add(), 5)
    with device_of(ledger, tmp_path, page=1, sleep=pass_time) as device:
        device.phone.sync()
        assert len(device.phone.copy) == 6
        assert device.waits
        assert all(1 <= seconds < 61 for seconds in device.waits)  # Retry-After, and a little


def test_a_long_retry_after_leaves_the_copy_and_the_session_alone(serve: Callable[..., Muster], tmp_path: Path) -> None:
    ledger = Ledger(serve(LIMIT_DEFAULT="2/hour"))
    with device_of(ledger, tmp_path) as device:
        device.phone.sync()
        # All that this network has at the token endpoint.
        assert [ledger.muster.refresh("nothing").status_code for _ in range(2)] == [400, 400]
        for _ in range(2):
            stale = device.expire()
            device.phone.add(**OPERATION)
            with pytest.raises(Offline, match="429"):
                device.phone.refresh(stale)
            assert device.phone.access == stale
        assert len(device.phone.waiting) == 2
        assert device.waits == []


# ---- The demonstration ----


def see_the_demo(url: str) -> list[str]:
    """The lines that it prints, errors included."""
    status, said = fork_script(ROOT / "scripts" / "phone.py", "--demo", "--url", url, environment={**os.environ})
    assert status == 0, said
    return said.splitlines()


STEPS = "Signed in|Offline|Synced|Lost response|Repeated|Other device|Refreshed|Deleted"


def test_the_demonstration_makes_an_account_where_there_is_no_demo_account(muster: Muster) -> None:
    seen = see_the_demo(f"{muster.url}/")
    assert [line[:15].strip() for line in seen] == STEPS.split("|")
    assert re.search(r"demo-\w+@example.com .* 0 operations$", seen[0])


def test_the_demonstration_uses_the_demo_account_and_leaves_it_as_it_was(database_url: str, folder: Path) -> None:
    assert DEMO_CREDENTIALS == (DEMO_EMAIL, DEMO_PASSWORD)
    muster = Muster(database_url, folder)
    muster.module = ["scripts.start", "--demo"]
    with muster:
        for _ in range(2):
            seen = see_the_demo(muster.url)
            assert [line[:15].strip() for line in seen] == STEPS.split("|")
            assert seen[0].endswith(f"as {DEMO_EMAIL} on a phone and a tablet; the phone has copied 122 operations")


def test_the_demonstration_signs_in_by_code_where_apps_see_no_password(serve: Callable[..., Muster]) -> None:
    muster = serve(PASSWORD_GRANT="off")
    seen = see_the_demo(muster.url)
    assert [line[:15].strip() for line in seen] == STEPS.split("|")
    assert {row.client_id for row in muster.sql("SELECT client_id FROM refresh_token")} == {"browser", "swagger"}


def test_the_demonstration_reports_that_no_server_answers() -> None:
    command = ["./scripts/phone.py", "--demo", "--url", f"http://127.0.0.1:{free_port()}"]
    seen = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (seen.returncode, seen.stdout) == (1, "")
    assert re.fullmatch(
        r"muster: http://127\.0\.0\.1:\d+: \S.*[^.]\. Is \./scripts/serve running there\?\n", seen.stderr
    )


@pytest.mark.parametrize("status", [200, 404])
def test_the_demonstration_reports_another_server(status: int) -> None:
    with another_server(status) as port:
        environment = {**os.environ, "PORT": str(port)}
        ended, said = fork_script(ROOT / "scripts" / "phone.py", "--demo", environment=environment)
    assert ended == 1
    assert re.fullmatch(rf"muster: http://127\.0\.0\.1:{port}: .+\. Is \./scripts/serve running there\?\n", said)


@contextmanager
def another_server(status: int) -> Iterator[int]:
    """The port of a server that answers everything with the same page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<!doctype html>")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", free_port()), Page) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.05)
        try:
            yield server.server_port
        finally:
            server.shutdown()
