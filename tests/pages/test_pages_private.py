"""The pages of a signed-in person: account, devices, operations, statements; without JavaScript."""

import re
from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import pytest

from app.models.operation import Period
from app.pages.jobs_and_chat import named_period
from tests.support.cookie_browser import Browser, let_pass
from tests.support.html import Elements, submit
from tests.support.mailed_links import new_link
from tests.support.servers import PASSWORD, Muster, claims_of, wait_for

pytestmark = pytest.mark.one_database

OPERATION = {
    "type": "sell",
    "instrument_type": "BTC",
    "figi": "string",
    "quantity": "10",
    "date": "2023-10-26T08:29:31",
}


@pytest.fixture
def browser(muster: Muster) -> Browser:
    return Browser(muster).sign_in(muster.new_account())


# ---- Operations ----


def test_an_operation_is_added_once_however_often_the_button_is_pressed(browser: Browser) -> None:
    form = Elements(browser.call("GET", browser.call("GET", "/operations/new").headers["location"]).text)
    answers = [submit(browser, "/operations/new", **OPERATION, key=form.value("key")) for _ in range(2)]
    assert [answer.headers["location"] for answer in answers] == ["/operations?done=added"] * 2
    (row,) = browser.call("GET", "/api/operations").json()
    assert (row["quantity"], row["instrument_type"], row["date"]) == ("10", "btc", "2023-10-26T08:29:31.000000Z")
    page = browser.call("GET", "/operations?done=added").text
    assert "The operation was added." in page
    assert "<title>2023-10: 1</title>" in page
    assert "<title>2023-10: -10</title>" in browser.call("GET", "/operations?chart=quantity").text, "it was sold"
    next_one = Elements(browser.call("GET", "/operations/new?key=1").text)
    assert [next_one.value(name) for name in ("type", "instrument_type", "figi")] == ["sell", "btc", "string"]
    assert next_one.value("quantity") == ""
    assert datetime.now(UTC) - datetime.fromisoformat(f"{next_one.value('date')}Z") < timedelta(minutes=5)


def test_a_sample_is_loaded_once_however_often_the_button_is_pressed(browser: Browser) -> None:
    key = Elements(browser.call("GET", "/operations").text).value("key")
    first, again = (submit(browser, "/operations/sample", key=key) for _ in range(2))
    assert first.headers["location"] == "/operations?done=sample"
    assert again.status_code in {303, 422}, "in another minute it is another sample"
    assert '<span class="count">52</span>' in browser.call("GET", "/operations").text


def test_a_workbook_is_recognized(browser: Browser) -> None:
    refused = submit(browser, "/operations/import", key="a-workbook", lines="PK\x03\x04 and so on")
    assert refused.status_code == 415
    assert "This is not a CSV file." in refused.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("quantity", "-1"), ("quantity", ""), ("date", "yesterday"), ("date", ""), ("type", ""), ("figi", "a\x00b")],
)
def test_errors_are_shown_beside_their_fields(browser: Browser, field: str, value: str) -> None:
    answer = submit(browser, "/operations/new", **{**OPERATION, field: value})
    assert answer.status_code == 422
    page = Elements(answer.text)
    invalid = [attrs["name"] for tag, attrs in page.tags if tag == "input" and attrs.get("aria-invalid")]
    assert invalid == [field]
    assert f'id="{field}-error"' in answer.text
    assert page.value("instrument_type") == "BTC", "the rest is as it was typed"


def test_an_operation_is_changed_and_another_change_is_not_overwritten(browser: Browser) -> None:
    headers = {"Origin": browser.origin}
    exact = {**OPERATION, "date": "2023-10-26T08:29:31.123456Z"}
    row = browser.call("POST", "/api/operations", json=exact, headers=headers).json()
    path = f"/operations/{row['id']}"
    page = Elements(browser.call("GET", path).text)
    form = {name: page.value(name) for name in (*OPERATION, "etag", "original_date")}
    assert form["date"] == "2023-10-26T08:29:31.123"
    assert submit(browser, path, **{**form, "quantity": "11"}).headers["location"] == "/operations?done=changed"
    current = browser.call("GET", f"/api{path}")
    now = current.json()
    assert (now["quantity"], now["date"]) == ("11", "2023-10-26T08:29:31.123456Z")
    late = submit(browser, path, **{**form, "quantity": "12"})
    assert late.status_code == 412
    assert "Someone else changed this operation while you were editing." in late.text
    assert Elements(late.text).value("quantity") == "12"
    etags = {attrs["value"] for _, attrs in Elements(late.text).tags if attrs.get("name") == "etag"}
    assert etags == {current.headers["etag"]}, "saving and deleting are about the version that is shown"
    deleted = submit(browser, f"{path}/delete", etag=form["etag"])
    assert deleted.status_code == 412
    assert "Someone else changed this operation while you were editing." in deleted.text
    fresh = Elements(browser.call("GET", path).text)
    assert submit(browser, f"{path}/delete", etag=fresh.value("etag")).headers["location"] == "/operations?done=deleted"
    assert browser.call("GET", path).status_code == 404
    refused = submit(browser, path, **{**form, "quantity": "none"})
    assert (refused.status_code, "Operation not found" in refused.text) == (404, True), "there is no form to show again"


def test_a_page_that_may_work_later_can_be_tried_again(browser: Browser) -> None:
    browser.muster.sql("ALTER TABLE operation RENAME TO elsewhere")
    try:
        failed, sent = browser.call("GET", "/operations?type=buy"), submit(browser, "/operations/sample")
    finally:
        browser.muster.sql("ALTER TABLE elsewhere RENAME TO operation")
    missing = browser.call("GET", "/operations/7000")
    assert [page.status_code for page in (failed, sent, missing)] == [500, 500, 404]
    assert ["Try again" in page.text for page in (failed, sent, missing)] == [True, False, False]


def test_the_list_is_filtered_and_goes_on_by_cursor(browser: Browser) -> None:
    lines = ["type,instrument_type,figi,quantity,date"]
    lines += [f"{'buy' if n % 2 else 'sell'},btc,F{n},1,2023-{n % 12 + 1:02}-01T00:00:00Z" for n in range(60)]
    imported = browser.call(
        "POST",
        "/api/operations/import",
        content="\r\n".join(lines) + "\r\n",
        headers={"Origin": browser.origin, "Content-Type": "text/csv"},
    )
    assert imported.status_code == 201, imported.text
    seen, path = [], "/operations?type=SELL"
    while path:
        page = Elements(browser.call("GET", path).text)
        seen += [attrs["href"] for _, attrs in page.tags if "Edit sell" in str(attrs.get("aria-label"))]
        assert not [attrs for _, attrs in page.tags if "Edit buy" in str(attrs.get("aria-label"))]
        links = [str(attrs["href"]) for tag, attrs in page.tags if tag == "a" and "after=" in str(attrs.get("href"))]
        assert all(parse_qs(urlsplit(link).query)["type"] == ["SELL"] for link in links)
        path = links[0] if links else ""
    assert len(seen) == len(set(seen)) == 30
    narrow = browser.call("GET", "/operations?type=SELL&from=2023-01-01").text
    chips = {
        attrs.get("aria-label"): attrs["href"] for _, attrs in Elements(narrow).tags if attrs.get("class") == "chip"
    }
    assert chips == {
        "Remove the filter Type SELL": "/operations?from=2023-01-01",
        "Remove the filter From 2023-01-01": "/operations?type=SELL",
    }
    suggested = [attrs["value"] for tag, attrs in Elements(narrow).tags if tag == "option"]
    assert suggested == ["buy", "sell", "btc"], "of one's own, whatever the filter"
    chart = browser.call("GET", "/operations?type=sell").text
    assert "<title>2023-01: 5</title>" in chart
    assert "<title>2023-02: 0</title>" in chart
    bad = browser.call("GET", "/operations?from=yesterday&to=2023-01-01")
    assert bad.status_code == 422
    assert Elements(bad.text).value("to") == "2023-01-01"
    assert not re.search("No operations|<svg viewBox=.0 -", bad.text), "an invalid filter shows no result"
    assert browser.call("GET", "/operations?after=nonsense").status_code == 422


# ---- The account ----


def test_the_name_is_changed(browser: Browser) -> None:
    assert submit(browser, "/account/name", name="Ada").headers["location"] == "/account?done=name"
    assert browser.call("GET", "/api/users/me").json()["name"] == "Ada"
    assert submit(browser, "/account/name", name="").status_code == 303
    assert browser.call("GET", "/api/users/me").json()["name"] is None
    assert submit(browser, "/account/name", name="a" * 101).status_code == 422


def test_the_password_is_changed_and_this_browser_stays_signed_in(muster: Muster) -> None:
    account = muster.new_account()
    browser, other = Browser(muster).sign_in(account), Browser(muster).sign_in(account)
    wrong = submit(browser, "/account/password", current_password="wrong", new_password="copper-lantern-meadow")
    assert wrong.status_code == 403
    assert 'id="password-current_password-error">This is not your current password.<' in wrong.text
    weak = submit(browser, "/account/password", current_password=PASSWORD, new_password="password1")
    assert weak.status_code == 422
    assert re.search(r'id="new_password-error">[^<]* easy to guess[^<]*<', weak.text)
    changed = submit(browser, "/account/password", current_password=PASSWORD, new_password="copper-lantern-meadow")
    assert changed.headers["location"] == "/account?done=password"
    assert browser.call("GET", changed.headers["location"]).status_code == 200
    assert other.call("GET", "/account").status_code == 303


def test_one_link_changes_the_address_and_another_resets_the_password(muster: Muster) -> None:
    account = muster.new_account()
    browser, new = Browser(muster).sign_in(account), f"new.{account.email}"
    assert submit(browser, "/account/email", email=new, current_password=PASSWORD).status_code == 303
    token = muster.link_token(new, subject="Confirm your new")
    assert submit(browser, "/verify-email", token=token).headers["location"] == "/account?done=verified"
    assert submit(browser, "/verify-email", token=token).status_code == 400
    assert new in browser.call("GET", "/account").text
    assert "a link is on its way" in submit(Browser(muster), "/forgot-password", email=new).text
    token = muster.link_token(new, subject="Reset")
    reset = {"token": token, "new_password": "copper-lantern-meadow"}
    assert submit(Browser(muster), "/reset-password", **reset).headers["location"] == "/sign-in?done=reset"
    assert submit(Browser(muster), "/reset-password", **reset).status_code == 400
    assert browser.call("GET", "/account").status_code == 303
    signed_in = submit(Browser(muster), "/sign-in", username=new, password="copper-lantern-meadow")
    assert signed_in.status_code == 303


def test_the_confirmation_link_is_sent_again(muster: Muster, browser: Browser) -> None:
    assert submit(browser, "/account/verification").headers["location"] == "/account?done=verification"
    muster.mails(browser.call("GET", "/api/users/me").json()["email"], subject="Confirm")


def test_an_archive_of_everything_is_prepared_and_downloaded(muster: Muster, browser: Browser) -> None:
    assert submit(browser, "/account/export").headers["location"] == "/account?done=export#data"

    def result() -> str | None:
        page = Elements(browser.call("GET", "/account").text)
        return next((str(a["href"]) for _, a in page.tags if str(a.get("href")).endswith("/result")), None)

    archive = browser.call("GET", wait_for(result, what="an archive"))
    assert archive.headers["content-disposition"] == 'attachment; filename="muster.zip"'
    assert archive.content.startswith(b"PK")
    assert "No statements yet." in browser.call("GET", "/jobs").text
    admin = Browser(muster).sign_in(muster.admin())
    assert "/result" not in admin.call("GET", "/account").text


def test_every_page_reminds_of_an_unconfirmed_address(muster: Muster, browser: Browser) -> None:
    confirmed = Browser(muster).sign_in(muster.new_account(is_verified=True))
    for path in ("/operations", "/account", "/devices"):
        assert "Confirm your address" in browser.call("GET", path).text
        assert "Confirm your address" not in confirmed.call("GET", path).text


def test_all_mistakes_are_shown_at_once(browser: Browser) -> None:
    refused = submit(browser, "/account/password", current_password="wrong", new_password="password1")
    assert refused.status_code == 403
    assert invalid_fields(refused.text) == ["current_password", "new_password"]
    refused = submit(browser, "/register", email="nobody", password="password1", name="Ada")
    assert refused.status_code == 422
    assert invalid_fields(refused.text) == ["email", "password"]


def invalid_fields(page: str) -> list[str | None]:
    return [attrs["name"] for tag, attrs in Elements(page).tags if tag == "input" and attrs.get("aria-invalid")]


def test_a_new_password_is_checked_while_it_is_typed(browser: Browser) -> None:
    def check(password: str) -> str:
        answer = submit(browser, "/check-password", password=password, email="grace@example.com", name="Hopper Grace")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        return answer.text

    assert check("copper-lantern-meadow") == ""
    assert check("tiny") == "The password needs at least 8 characters."
    assert "easy to guess" in check("hopper grace")
    foreign = browser.call(
        "POST", "/check-password", data={"password": "x"}, headers={"Origin": "https://evil.example"}
    )
    assert foreign.status_code == 403


def test_a_failed_link_offers_a_new_one_and_shows_no_code(muster: Muster, browser: Browser) -> None:
    account = muster.new_account()
    code = new_link(muster, account, "reset")
    weak = submit(browser, "/reset-password", token=code, new_password="password1")
    assert [tag["type"] for _, tag in Elements(weak.text).tags if tag.get("value") == code] == ["hidden"]
    expired = new_link(muster, account, "reset", age=timedelta(hours=2))
    failed = submit(browser, "/reset-password", token=expired, new_password="copper-lantern-meadow")
    assert failed.status_code == 400
    assert 'action="/renew-link"' in failed.text
    assert 'name="new_password"' not in failed.text
    renewed = submit(Browser(muster), "/renew-link", token=Elements(failed.text).value("token"))
    assert renewed.headers["location"] == "/sign-in?done=verification"
    muster.mails(account.email, subject="Reset")
    assert 'href="/forgot-password"' in submit(browser, "/reset-password", token="x", new_password="y").text


def test_a_link_to_a_confirmed_address_says_so(muster: Muster) -> None:
    account = muster.new_account()
    link = new_link(muster, account, "verification")
    reset = {"token": new_link(muster, account, "reset"), "new_password": "copper-lantern-meadow"}
    assert submit(Browser(muster), "/reset-password", **reset).status_code == 303
    answer = submit(Browser(muster), "/verify-email", token=link)
    assert answer.headers["location"] == "/sign-in?done=already-confirmed"
    assert "already confirmed" in Browser(muster).call("GET", answer.headers["location"]).text


def test_the_account_is_deleted(browser: Browser) -> None:
    assert submit(browser, "/account/delete", current_password="wrong").status_code == 403
    assert submit(browser, "/account/delete", current_password=PASSWORD).headers["location"] == "/sign-in?done=gone"
    assert browser.cookie == "muster="


# ---- Devices ----


def test_one_device_and_all_others_are_signed_out(muster: Muster) -> None:
    account = muster.new_account()
    browser, second, third = (Browser(muster).sign_in(account, device=name) for name in ("first", "second", "third"))
    page = browser.call("GET", "/devices").text
    assert page.count("this device") == 1
    assert re.findall("<h2><bdi>(.*?)</bdi>", page) == ["first", "third", "second"], "this one, then the latest"
    one = f"/devices/{claims_of(second.token.access)['sid']}/sign-out"
    assert submit(browser, one).headers["location"] == "/devices?done=device"
    assert second.call("GET", "/devices").status_code == 303
    assert third.call("GET", "/devices").status_code == 200
    assert submit(browser, "/devices/sign-out-others").headers["location"] == "/devices?done=devices"
    assert third.call("GET", "/devices").status_code == 303
    assert submit(browser, one).status_code == 404
    assert submit(browser, "/devices/nothing/sign-out").status_code == 404


def test_a_device_is_renamed_in_the_list(browser: Browser) -> None:
    path = f"/devices/{claims_of(browser.token.access)['sid']}/name"
    refused = submit(browser, path, device="https://example.com")
    assert refused.status_code == 422
    assert "that is not a link" in refused.text
    assert '<details class="rename" open>' in refused.text
    assert submit(browser, path, device="Ada's <laptop>").headers["location"] == "/devices?done=renamed"
    assert "<bdi>Ada&#39;s &lt;laptop&gt;</bdi>" in browser.call("GET", "/devices").text


# ---- Chat ----


def test_a_room_is_chosen_by_any_spelling_and_links_lead_nowhere_but_to_the_web(
    muster: Muster, browser: Browser
) -> None:
    room, me = f"Team {uuid4().hex}", browser.call("GET", "/api/users/me").json()["id"]
    slug = room.lower().replace(" ", "-")
    text = 'See https://example.com/a?b=1&c=2.\r\n(http://x.test) javascript:alert(1) https://"onclick=x'
    sent = submit(browser, f"/chat?room={quote(room)}", text=text)
    assert sent.headers["location"] == f"/chat?room={slug}"
    submit(browser, f"/chat?room={slug}", text="Again")
    muster.sql("UPDATE chat_message SET created_at = '2026-01-31 10:00:00.000000' WHERE room = :room", room=slug)
    page = browser.call("GET", f"/chat?room={slug}").text
    links = [attrs for tag, attrs in Elements(page).tags if tag == "a" and attrs.get("target")]
    assert [link["href"] for link in links] == ["https://example.com/a?b=1&c=2", "http://x.test"]
    assert {link["rel"] for link in links} == {"noreferrer noopener"}
    assert ".\n(<a" in page
    assert re.findall(r'<li class="([^"]*)" data-author="([^"]*)"', page) == [("mine", me), ("mine same", me)]
    assert page.count('class="day"') == 1
    assert f'<a href="/chat?room={slug}" aria-current="true">' in page
    assert browser.call("GET", "/chat?room=%20!").status_code == 200
    assert submit(browser, f"/chat?room={slug}", text=" ").status_code == 422


# ---- Statements ----


def test_a_statement_is_created_read_and_downloaded(browser: Browser) -> None:
    submit(browser, "/operations/new", **OPERATION)
    assert submit(browser, "/jobs", **{"from": "2023-01-01"}).headers["location"] == "/jobs?done=started"

    def result() -> str | None:
        page = Elements(browser.call("GET", "/jobs").text)
        return next((str(a["href"]) for _, a in page.tags if str(a.get("href")).endswith("/result")), None)

    path = wait_for(result, what="a statement")
    statement = browser.call("GET", path)
    assert "<title>2023-10: 1</title>" in statement.text
    assert statement.headers["content-security-policy"].startswith("sandbox")
    table = browser.call("GET", f"{path}?format=csv")
    assert table.headers["content-disposition"] == 'attachment; filename="statement.csv"'
    cancel = path.removesuffix("result") + "cancel"
    late = submit(browser, cancel)
    assert late.status_code == 409
    assert "This statement is finished, so it can no longer be canceled." in late.text
    rows = browser.call("GET", "/jobs").text
    assert re.search(r"<h3>From 2023 <span[^>]*>Ready<", rows)
    assert "1 operation, " in rows
    assert submit(browser, "/jobs", **{"from": "yesterday"}).status_code == 422
    backwards = submit(browser, "/jobs", period="dates", **{"from": "2023-02-01", "to": "2023-01-01"})
    assert backwards.status_code == 422
    assert 'id="to-error">Choose an end after the start.<' in backwards.text
    assert "Confirm your e-mail address first" in submit(browser, "/jobs", mail="on").text
    assert submit(browser, "/jobs", period="everything", **{"from": "2023-01-01"}).status_code == 303
    assert browser.call("GET", "/api/jobs?limit=1").json()[0]["from"] is None, "dates that another choice hides"


PERIODS: dict[str, tuple[str, ...]] = {
    "this-month": ("2026-02-01", "2026-03-01"),
    "last-month": ("2026-01-01", "2026-02-01"),
    "this-quarter": ("2026-01-01", "2026-04-01"),
    "this-year": ("2026-01-01", "2027-01-01"),
    "last-year": ("2025-01-01", "2026-01-01"),
    "everything": (),
}


@pytest.mark.parametrize(("name", "period"), PERIODS.items(), ids=PERIODS)
def test_a_period_is_chosen_by_its_name(name: str, period: tuple[str, ...]) -> None:
    assert named_period(name, date(2026, 2, 28)) == dict(zip(("from", "to"), period, strict=False))


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (None, None, "Everything"),
        ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2026"),
        ("2026-07-01T00:00:00Z", "2026-10-01T00:00:00Z", "July 2026 to September 2026"),
        ("2026-11-05T00:00:00Z", "2026-11-06T00:00:00Z", "November 5, 2026"),
        ("2026-11-05T08:00:00Z", "2026-11-16T00:00:00Z", "November 5, 2026, 08:00 to November 16, 2026, 00:00"),
        (None, "2026-12-01T00:00:00Z", "Until November 2026"),
        ("0001-01-01T00:00:00Z", None, "From 1"),
        (None, "0001-01-01T00:00:00Z", "Until 1"),
    ],
)
def test_a_period_is_described_in_words(since: str | None, until: str | None, words: str) -> None:
    assert Period.model_validate({"from": since, "to": until}).in_words() == words


def test_a_page_extends_the_cookie(muster: Muster, browser: Browser) -> None:
    let_pass(muster, browser, timedelta(days=16))
    before = browser.cookie
    assert browser.call("GET", "/operations").status_code == 200
    assert browser.cookie not in {before, "muster="}


def test_the_account_shows_what_happened_to_it_and_not_which_admin_did_it(muster: Muster) -> None:
    account, admin = muster.new_account(), muster.admin()
    there = account.tokens()
    elsewhere = muster.client.delete(
        f"/api/users/{claims_of(there.access)['sub']}/sessions", headers=admin.tokens().bearer
    )
    assert elsewhere.status_code == 204
    page = (browser := Browser(muster).sign_in(account)).call("GET", "/account").text
    text = " ".join(page.split())
    assert "Signed in <span" in text
    assert "Devices were signed out" in text
    assert "by an administrator" in text
    assert admin.email not in text
    assert "?after=" not in text
    for _ in range(10):
        account.tokens()
    page = browser.call("GET", "/account").text
    assert "Account created" not in page
    older = next(str(attrs["href"]) for _, attrs in Elements(page).tags if "?after=" in str(attrs.get("href")))
    assert "Account created" in browser.call("GET", older).text
