"""Both applications as one, and each on its own port: the same addresses, HTML for people, problems for programs."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.assertions import assert_problem
from tests.support.databases import fresh_database
from tests.support.processes import PlainProcess
from tests.support.proxies import CLIENT
from tests.support.servers import NO_TLS, PASSWORD, STARTUP, Muster, free_port, wait_for

pytestmark = pytest.mark.one_database

MAX_BODY = 4096
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Served:
    """The instance that serves the API and the instance that serves the pages, which may be the same."""

    api: Muster
    pages: Muster


@pytest.fixture(scope="module", params=["together", "apart"])
def served(request: pytest.FixtureRequest, folder: Path, postgres: str) -> Iterator[Served]:
    # In development the log has a line for each request.
    settings = {"MAX_BODY": str(MAX_BODY), "LIMIT_REGISTER": "3/minute", "ENVIRONMENT": "development"}
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database("sqlite", folder, postgres))

        def start(app: str, **more: str) -> Muster:
            return stack.enter_context(
                Muster(url, folder, app=f"tests.support.apps.failing_routes:{app}", **settings, **more)
            )

        if request.param == "together":
            both = start("app")
            yield Served(both, both)
        else:
            api = start("api", TRUSTED_PROXIES="127.0.0.1")
            yield Served(api, start("web", API_URL=api.url, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing"))


def assert_page(answer: httpx.Response, status: int) -> None:
    """HTML that explains itself, with the headers of every page."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    assert re.search(r"<h1>[^<]+</h1>\s*<p class=\"lead\">[^<]+\.</p>", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def post(served: Served, path: str, *, client: httpx.Client | None = None, **form: str) -> httpx.Response:
    """Send a form from our own page; `client` is that of another machine."""
    return (client or served.pages.client).post(path, data=form, headers={"Origin": served.pages.url})


# ---- Errors ----


def test_a_404_is_a_page_or_a_problem(served: Served) -> None:
    for path in (
        "/nowhere",
        "/operations/x",
        "/operations/1/nothing",
        "/static/nothing.js",
        "/apiary",
        "//api/users/me",
    ):
        assert_page(served.pages.client.get(served.pages.url + path), 404)
    assert_problem(served.api.client.get("/api/nowhere"), 404, "not-found")


def test_a_405_is_a_page_or_a_problem(served: Served) -> None:
    answer = served.pages.client.put("/sign-in")
    assert_page(answer, 405)
    assert set(answer.headers["allow"].split(", ")) & {"GET", "POST"}
    assert_problem(served.api.client.put("/api/users/me"), 405, "method-not-allowed")


def test_a_413_is_a_page_or_a_problem(served: Served) -> None:
    body = b"a=" + b"b" * MAX_BODY
    form = {**FORM, "Origin": served.pages.url}
    assert_page(served.pages.client.post("/sign-in", content=body, headers=form), 413)
    chunks = served.pages.client.post("/sign-in", content=iter([body[:9], body]), headers=form)
    assert_page(chunks, 413)
    assert_problem(served.api.client.post("/api/auth/register", content=body), 413, "content-too-large")


@pytest.mark.parametrize("content", [b"a=%ff", b"a=b&" * 60, b"\xff"], ids=["not UTF-8", "many", "bytes"])
def test_a_malformed_form_is_a_page_with_400(served: Served, content: bytes) -> None:
    origin = {"Origin": served.pages.url}
    assert_page(served.pages.client.post("/sign-in", content=content, headers={**FORM, **origin}), 400)
    assert_page(served.pages.client.post("/sign-in", json={"a": "b"}, headers=origin), 400)


def test_a_422_is_the_form_again_or_a_problem(served: Served) -> None:
    answer = post(served, "/register", email="nobody", password=PASSWORD)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "text/html; charset=utf-8")
    assert 'value="nobody"' in answer.text
    assert PASSWORD not in answer.text
    body = {"email": "nobody", "password": PASSWORD}
    assert_problem(served.api.client.post("/api/auth/register", json=body), 422, "invalid")


def test_a_429_counts_the_person_and_not_the_pages(served: Served) -> None:
    """The person has an address of their own, and the pages have that of this machine. Apart, the API believes what the
    pages say of the person only because it trusts them as a proxy."""
    path, email = "/api/auth/forgot-password", "a@example.com"
    transport = httpx.HTTPTransport(verify=NO_TLS, local_address=CLIENT)
    with httpx.Client(base_url=served.pages.url, transport=transport, timeout=STARTUP) as person:
        answers = [post(served, "/forgot-password", client=person, email=email) for _ in range(4)]
        refused = person.post(served.api.url + path, json={"email": email})
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    seconds = answers[-1].headers["retry-after"]
    assert f"Try again in {seconds} seconds." in answers[-1].text
    assert_problem(refused, 429, "too-many-requests")
    assert served.api.client.post(path, json={"email": email}).status_code == 202
    assert post(served, "/forgot-password", email=email).status_code == 200


def test_a_500_is_a_page_or_a_problem(served: Served) -> None:
    answer = served.pages.client.get("/broken")
    assert_page(answer, 500)
    assert "secret" not in answer.text
    ticket = re.search(r"ticket ([0-9a-f]{12})", answer.text)
    assert ticket
    assert served.pages.log.count(ticket[1]) == 1
    answer = served.api.client.get("/api/broken")
    assert_problem(answer, 500, "internal")
    assert served.api.log.count(answer.json()["ticket"]) == 1


def test_each_application_has_its_health_and_its_metrics(served: Served) -> None:
    for muster in (served.api, served.pages):
        for path in ("/health/live", "/health/ready"):
            assert muster.client.get(path).json() == {"status": "ok"}
        assert "http_requests_total{" in muster.client.get("/metrics").text


def test_a_socket_at_a_page_is_refused_and_breaks_nothing(served: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{served.pages.port}/chat", open_timeout=STARTUP)
    assert refused.value.response.status_code == 403


# ---- The applications together ----


def test_signing_in_and_out(served: Served) -> None:
    account = served.api.new_account()
    signed_in = post(served, "/sign-in", username=account.email, password=account.password)
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/operations")
    cookie = {"Cookie": signed_in.headers["set-cookie"].partition(";")[0]}
    page = served.pages.client.get("/devices", headers={**cookie, "User-Agent": "Firefox/1 (Linux)"})
    assert (page.status_code, page.headers["cache-control"]) == (200, "private, no-store")
    assert "127.0.0.1" in page.text
    foreign = served.pages.client.post("/sign-out", headers={**cookie, "Origin": "https://evil.example"}, data={})
    assert_page(foreign, 403)
    out = served.pages.client.post("/sign-out", headers={**cookie, "Origin": served.pages.url}, data={})
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in?done=signed-out")
    after = served.pages.client.get("/devices", headers=cookie)
    assert (after.status_code, after.headers["location"]) == (303, "/sign-in?next=%2Fdevices&done=expired")


def test_a_request_has_one_id_in_both_logs_and_in_the_response(served: Served) -> None:
    cookie, identifier = served.api.new_account().cookie(), uuid4().hex
    answer = served.pages.client.get("/operations", headers={"X-Request-ID": identifier, "Cookie": cookie})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, identifier)
    for muster, path in ((served.api, "/api/operations"), (served.pages, "/operations")):
        line = f"[{identifier}] GET {path} 200 "
        wait_for(lambda: line in muster.log, what=line)  # noqa: B023  # called at once


@pytest.mark.slow
def test_pages_show_a_503_while_the_api_is_unavailable(folder: Path) -> None:
    settings = {"API_URL": f"http://127.0.0.1:{free_port()}"}
    alone = Muster("sqlite:///nothing.db", folder, app="app.main:web", **settings)
    alone.process = PlainProcess(alone.module, {**alone.settings}, alone.log_file)
    try:

        def live() -> bool:
            try:
                return alone.client.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(live, what="live pages")
        answer = alone.client.get("/operations")
        assert_page(answer, 503)
        assert answer.headers["retry-after"] == "5"
        assert alone.client.get("/health/ready").status_code == 503
        assert alone.client.get("/sign-in").status_code == 200
    finally:
        alone.stop()
        alone.client.close()
