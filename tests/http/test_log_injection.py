"""Whatever a client sends, a log line stays one line that says what happened, and a mail gets no header from it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from secrets import token_urlsafe
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.support.databases import fresh_database
from tests.support.hostile import head, raw
from tests.support.ledgers import OPERATION
from tests.support.processes import fork_script
from tests.support.servers import PASSWORD, Muster, Tokens, text_of, wait_for
from tests.support.sockets import Socket, new_room
from tests.support.starts import environment

pytestmark = pytest.mark.one_database

CANARY = "planted8315"
RECORD = "2026-11-24 10:00:00,000 WARNING muster.security [-] "
FORGED = (
    f"\r\n{RECORD}{CANARY}",
    f"\u2028{RECORD}{CANARY}\u2029\x85\x0b\x0c",
    f"\x1b[2J\x1b[31m{CANARY}\x9b1A\x08\x7f",
    f'"}}\n{{"level": "WARNING", "logger": "muster.security", "message": "{CANARY}"}}',
    f"'\"\\{CANARY} %s %d %(message)s %n {{message}} ${{jndi:ldap://{CANARY}}}",
    f"\u202e{CANARY}\u2066\ufeff\u200b",
    CANARY * 300,
)
HEADERS = ("X-Request-ID", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto", "Referer", "Origin", "Cookie")
READABLE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]{12} [A-Z]+ [a-z.]+ \[[\w.-]+\] [ -~]+|    [ -~]*", re.ASCII)
BANNER = re.compile(r"(Muster|Swagger UI|Data|Mail|Jobs|Next|Stop) {2,}.*")

WRITTEN = """
import json, logging, sys
from app.core.logs import configure_logging, request_id, security_event
from app.core.settings import get_settings
configure_logging(get_settings().model_copy(update={"environment": sys.argv[1]}))
for text in json.loads(sys.argv[2]):
    logging.getLogger("muster.request").info("%s", text, extra={"fields": {"route": text}})
    security_event(text, text=text)
    logging.getLogger("uvicorn.error").warning("%s", text)
    logging.getLogger("another.library").warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("muster.error").exception("ticket %s", text)
"""
RECORDS = 5  # of each text


@pytest.fixture(scope="module", params=["development", "production"])
def served(request: pytest.FixtureRequest, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance whose mail server is away, so each mail is a failed attempt in the log; tests are a trusted proxy."""
    settings = {
        "ENVIRONMENT": request.param,
        "SECRET_KEYS": token_urlsafe(48),
        "PUBLIC_URL": "https://muster.example",
        "MAIL_URL": "smtp://127.0.0.1:1",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, **settings) as muster:
        yield muster


def records(log: str, environment: str) -> list[str]:
    """The first line of each record, once every line was found to be one, or in development to belong to one."""
    lines = [line for line in log.split("\n") if line and not BANNER.fullmatch(line)]
    if environment == "production":
        assert all(isinstance(json.loads(line), dict) for line in lines)
        return lines
    assert [line for line in lines if not READABLE.fullmatch(line)] == []
    return [line for line in lines if not line.startswith(" ")]


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["development", "production"])
def test_a_logged_value_cannot_forge_a_log_record(deployment: str, tmp_path: Path) -> None:
    script = tmp_path / "written.py"
    script.write_text(WRITTEN)
    status, log = fork_script(script, deployment, json.dumps([*FORGED, "\ud800"]), environment=environment())
    assert status == 0, log
    assert log.isascii()
    assert len(records(log, deployment)) == RECORDS * (len(FORGED) + 1)
    if deployment == "production":
        messages = [json.loads(line)["message"] for line in log.splitlines()]
        assert messages[0] == FORGED[0], "nothing is lost"


def test_client_input_appears_in_no_log_line(served: Muster) -> None:
    account = served.new_account()
    tokens = account.sign_in()
    for number, text in enumerate(FORGED):
        send_everywhere(served, account.email, tokens, text, f"seen-{number}")
    last = len(FORGED) - 1
    wait_for(lambda: f"seen-{last}" in served.log, what="the last line")
    wait_for(lambda: "(mail), attempt 1 of 8" in served.log, what="a mail that failed")
    log = served.log.replace("--admin you@example.com", "")  # the banner's example
    lines = records(log, served.settings["ENVIRONMENT"])
    assert "Invalid HTTP request received." in log
    assert "Traceback" not in log
    for number in range(len(FORGED)):
        assert len([line for line in lines if f"seen-{number}" in line]) == 1
    for secret in (CANARY, account.email, PASSWORD, tokens.access, tokens.refresh, "example.com"):
        assert secret not in log


def send_everywhere(muster: Muster, email: str, tokens: Tokens, text: str, request_id: str) -> None:
    """`text` wherever a client may put words. Most of it is refused; none of it may break anything."""
    client, address = muster.client, quote(text)[:20_000]
    hostile = [(name.encode(), as_header(text)) for name in HEADERS]
    bearer = [(b"Authorization", tokens.bearer["Authorization"].encode())]
    person = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    form = {"grant_type": "password", "username": email, "password": PASSWORD}
    calls: list[tuple[str, str, dict[str, object]]] = [
        ("GET", f"/{address}", {}),
        ("GET", f"/api/{address}?{address}={address}", {}),
        ("GET", "/api/operations", {"params": {"figi": text, "after": text}}),
        ("GET", f"/api/users/{address}", {}),
        ("GET", "/operations", {"params": {"figi": text}}),
        ("POST", "/sign-in", {"data": {"email": text, "password": text, "next": text}}),
        ("POST", "/api/auth/register", {"json": {**person, "name": text}}),
        ("POST", "/api/auth/register", {"json": {**person, "email": f"a@example.com{text}"}}),
        ("POST", "/api/auth/register", {"json": {**person, text: text}}),
        ("POST", "/api/auth/forgot-password", {"json": {"email": text}}),
        ("POST", "/api/auth/forgot-password", {"json": {"email": email}}),
        ("POST", "/api/auth/token", {"data": {**form, "device": text, "client_id": text}}),
        ("POST", "/api/auth/token", {"data": {**form, "device": text}}),
        ("POST", "/api/auth/token", {"data": {**form, "username": text, "scope": text}}),
        ("POST", "/api/auth/token", {"data": {"grant_type": text, "refresh_token": text, text: text}}),
        ("POST", "/api/auth/cookie/login", {"data": {"username": text, "password": text}}),
        ("POST", "/api/auth/revoke", {"data": {"token": text, "token_type_hint": text}}),
        ("PATCH", "/api/users/me", {"json": {"name": text}}),
        ("PUT", "/api/users/me/email", {"json": {"email": text, "current_password": PASSWORD}}),
        ("PATCH", f"/api/roles/{address}", {"json": {"scopes": [text]}}),
        ("POST", "/api/operations", {"json": {**OPERATION, "figi": text}}),
        ("POST", "/api/operations/import", {"content": text.encode(), "headers": [(b"Content-Type", b"text/csv")]}),
        ("POST", "/api/tasks", {"json": {"title": text}}),
        ("POST", "/api/chat/messages", {"json": {"text": text, "room": "lobby", "client_message_id": text}}),
        ("POST", "/api/chat/messages", {"json": {"text": text[:1000]}}),
        ("POST", "/api/jobs/statement", {"json": {"from": text, "to": text}}),
        ("GET", "/api/jobs", {"params": {"state": text}}),
        ("GET", "/metrics", {"params": {text: text}}),
    ]
    for method, path, sent in calls:
        extra = sent.pop("headers", [])
        assert isinstance(extra, list)
        answer = client.request(method, path, headers=[*hostile, *bearer, *extra], **sent)  # type: ignore[arg-type]
        assert answer.status_code < 500, (method, path, answer.text)
    with Socket(muster, tokens, room=new_room(), query=f"&x={address[:2000]}") as socket:
        socket.ready()
        socket.say(text[:1000], client_message_id="one")
        socket.send({"text": text, text: text})
    for line in (text.encode(), as_header(text)):
        raw(muster, head("GET", "/x", Connection="close").replace(b"localhost", line))
        raw(muster, b"GET /" + line + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
        raw(muster, line + b"\r\n\r\n")
    client.get("/api/docs", headers={"X-Request-ID": request_id})


def as_header(text: str) -> bytes:
    """The text without the bytes that a well-behaved client never sends in a header; `raw` sends them."""
    return re.sub(rb"[\x00-\x1f\x7f]", b"", text.encode()).strip()


def test_client_input_cannot_add_a_mail_header(muster: Muster) -> None:
    """The address is the only client input in the headers of a mail; the device's name is in the text."""
    bcc = "\r\nBcc: somebody@example.com\r\n\r\nA text of my own"
    for email in (
        f"a@example.com{bcc}",
        f'"a{bcc}"@example.com',
        "a@example.com, b@example.com",
        "a\u2028b@example.com",
    ):
        refused = muster.client.post("/api/auth/register", json={"email": email, "password": PASSWORD})
        assert refused.status_code == 422
    account = muster.register(name="Ada {device} %s")
    account.confirm()
    stolen = account.sign_in(device=f"phone{bcc} {{what}} %s")
    following = Tokens(muster.refresh(stolen.refresh).json())
    assert muster.refresh(following.refresh).status_code == 200
    assert muster.refresh(stolen.refresh).status_code == 400, "two people hold it: a mail names the device"
    (mail,) = muster.mails(account.email, subject="A device was signed out")
    assert sorted(mail.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    text = text_of(mail)
    assert "phoneBcc:  text of my own {what} %s." in text
    assert "somebody@example.com" not in text
