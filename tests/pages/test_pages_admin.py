"""The administration pages as an admin, a read-only admin and everybody else see them."""

import json
import re
from html import unescape
from uuid import uuid4

import pytest

from app.pages.admin import OTHER_ADDRESS
from app.pages.forms import TEXTS
from tests.support.cookie_browser import Browser
from tests.support.html import Elements, submit
from tests.support.servers import Account, Muster, claims_of, wait_for

pytestmark = pytest.mark.one_database

PAGES = ["/admin", "/admin/roles", "/admin/jobs", "/admin/apps", "/admin/history", "/admin/system"]
CALLBACK = "com.example.notes:/signed-in"


def signed_in(muster: Muster, role: str) -> Browser:
    browser = Browser(muster)
    browser.cookie = muster.new_account(role=role, is_verified=True).cookie()
    return browser


def new_role(muster: Muster, name: str, *scopes: str) -> str:
    muster.sql(
        "INSERT INTO role (name, scopes) VALUES (:name, :scopes) ON CONFLICT DO NOTHING",
        name=name,
        scopes=json.dumps(scopes),
    )
    return name


def page_of(account: Account) -> str:
    return f"/admin/people/{claims_of(account.tokens().access)['sub']}"


@pytest.fixture
def admin(muster: Muster) -> Browser:
    return signed_in(muster, "admin")


@pytest.fixture
def read_only_admin(muster: Muster) -> Browser:
    """A person whose role only reads other accounts."""
    return signed_in(muster, new_role(muster, "support", "me", "jobs", "users:read"))


@pytest.mark.slow
def test_the_pages_are_for_those_who_may_read_other_accounts(
    muster: Muster, admin: Browser, read_only_admin: Browser
) -> None:
    person = signed_in(muster, "user")
    for path in [*PAGES, page_of(muster.new_account())]:
        answer = Browser(muster).call("GET", path)
        assert answer.headers["location"].startswith("/sign-in?next=%2Fadmin"), path
        refused = person.call("GET", path)
        assert (refused.status_code, "<h1>No access</h1>" in refused.text) == (403, True), path
        for browser in (admin, read_only_admin):
            assert browser.call("GET", path).status_code == 200, path
    assert submit(person, "/admin/apps", id="mine", name="Mine", redirect_uris=CALLBACK).status_code == 403
    link = '<a href="/admin"'
    assert [link in who.call("GET", "/devices").text for who in (person, admin, read_only_admin)] == [False, True, True]


def test_read_only_admins_see_no_buttons(muster: Muster, read_only_admin: Browser) -> None:
    account = muster.new_account()
    for path in [*PAGES, page_of(account)]:
        forms = [attrs for tag, attrs in Elements(read_only_admin.call("GET", path).text).tags if tag == "form"]
        assert [form["action"] for form in forms if form["method"] == "post"] == ["/sign-out"], path
    assert submit(read_only_admin, page_of(account), role="admin").status_code == 403
    few = signed_in(muster, new_role(muster, "reader", "me", "users:read"))
    assert "/admin/jobs" not in few.call("GET", page_of(account)).text
    assert few.call("GET", "/admin/jobs").status_code == 403


@pytest.mark.slow
def test_people_are_found_and_the_list_has_pages(muster: Muster, admin: Browser) -> None:
    name = uuid4().hex
    accounts = [muster.new_account(name=f"{name} {number}") for number in range(51)]
    first = admin.call("GET", "/admin", params={"search": name.upper(), "role": "user", "is_active": "true"}).text
    assert [account.email in first for account in accounts] == [True] * 50 + [False]
    following = next(str(attrs["href"]) for _, attrs in Elements(first).tags if "after=" in str(attrs.get("href")))
    second = admin.call("GET", following).text
    assert (">Next</a>" in first, ">Previous</a>" in second) == (True, True)  # people are listed oldest first
    assert [account.email in second for account in accounts] == [False] * 50 + [True]
    (link,) = [attrs["href"] for _, attrs in Elements(second).tags if attrs.get("class") == "whole"]
    assert link == page_of(accounts[-1])
    for other in ({"role": "admin"}, {"is_active": "false"}):
        assert "Nobody matches." in admin.call("GET", "/admin", params={"search": name, **other}).text
    assert admin.call("GET", "/admin?search=%00").status_code == 422


@pytest.mark.slow
def test_a_person_is_signed_out_changed_and_deleted(muster: Muster, admin: Browser) -> None:
    account = muster.new_account(name="Grace")
    here = page_of(account)
    assert submit(Browser(muster), "/sign-in", username=account.email, password="not-it-at-all").status_code == 400
    wait_for(lambda: "wrong password" in admin.call("GET", here).text, what="the refusal in the history")
    phone, laptop = (Browser(muster).sign_in(account, device=name) for name in ("Her phone", "Her laptop"))
    page = admin.call("GET", here).text
    assert all(text in page for text in ("Grace", account.email, "not confirmed", "Her phone", "Her laptop"))

    one = f"{here}/devices/{claims_of(phone.token.access)['sid']}/sign-out"
    assert submit(admin, one).headers["location"] == f"{here}?done=device"
    assert [device.call("GET", "/devices").status_code for device in (phone, laptop)] == [303, 200]
    assert submit(admin, one).status_code == 404
    assert submit(admin, f"{here}/sign-out").headers["location"] == f"{here}?done=everywhere"
    assert laptop.call("GET", "/devices").status_code == 303
    assert "Not signed in anywhere." in admin.call("GET", here).text

    assert submit(admin, here, role="admin").headers["location"] == f"{here}?done=person"
    assert '<option value="admin" selected>' in admin.call("GET", here).text
    assert submit(admin, here, role="king").status_code == 422
    submit(admin, here, is_active="false")
    assert "Enable account" in admin.call("GET", here).text
    assert Browser(muster).log_in(account).status_code == 400
    submit(admin, here, is_active="true")
    assert Browser(muster).log_in(account).status_code == 204

    history = unescape(admin.call("GET", here).text)
    assert all(
        text in history for text in ("with a password, in a browser", "Devices were signed out", "Account disabled")
    )
    me = admin.call("GET", "/api/users/me").json()["email"]
    assert f"by <bdi>{me}</bdi>" in history
    whole = admin.call("GET", "/admin/history").text
    assert f'<a href="{here}"><bdi>{account.email}</bdi></a> by <bdi>{me}</bdi>' in whole

    mistyped = submit(admin, f"{here}/delete", email="somebody@example.com")
    assert mistyped.status_code == 422
    assert OTHER_ADDRESS in mistyped.text
    assert (
        submit(admin, f"{here}/delete", email=account.email.upper()).headers["location"] == "/admin?done=person-deleted"
    )
    assert admin.call("GET", here).status_code == 404


def test_admins_cannot_change_their_own_account_here(admin: Browser) -> None:
    me = admin.call("GET", "/api/users/me").json()["id"]
    page = admin.call("GET", f"/admin/people/{me}").text
    assert "Delete account" not in page
    assert '<a href="/account">Account</a>' in page


def test_a_role_gains_and_loses_permissions(muster: Muster, admin: Browser) -> None:
    new_role(muster, "guest", "me")
    page = admin.call("GET", "/admin/roles").text
    assert "Read and write chat messages" in page
    changed = submit(admin, "/admin/roles/guest", me="on", chat="on")
    assert changed.headers["location"] == "/admin/roles?done=role"
    roles = {role["name"]: role["scopes"] for role in admin.call("GET", "/api/roles").json()}
    assert roles["guest"] == ["me", "chat"]
    none = submit(admin, "/admin/roles/guest", nothing="on")
    assert none.status_code == 422
    assert TEXTS["fields"]["scopes"] in none.text
    assert submit(admin, "/admin/roles/nobody", me="on").status_code == 404
    always = [
        attrs["value"] for _, attrs in Elements(page).tags if attrs.get("name") == "users:write" and "value" in attrs
    ]
    assert always == ["on"], "the administrators keep what they need"


def test_a_role_with_a_question_mark_in_its_name_is_distinct_from_the_one_without(
    muster: Muster, admin: Browser
) -> None:
    for name in ("ranger", "ranger?"):
        new_role(muster, name, "me")
    assert submit(admin, "/admin/roles/ranger%3F", me="on", chat="on").status_code == 303
    roles = {role["name"]: role["scopes"] for role in admin.call("GET", "/api/roles").json()}
    assert (roles["ranger"], roles["ranger?"]) == (["me"], ["me", "chat"])
    assert submit(admin, "/admin/apps/swagger%3Fx/remove").status_code == 422


def test_apps_are_added_changed_and_removed(admin: Browser) -> None:
    app = {"id": "notes", "name": "Notes", "redirect_uris": f"{CALLBACK}\r\nhttp://127.0.0.1/signed-in\r\n"}
    assert submit(admin, "/admin/apps", **app).headers["location"] == "/admin/apps?done=app"
    again = submit(admin, "/admin/apps", **app)
    assert again.status_code == 409
    assert "Another app has this client id. Choose another one." in again.text
    wrong = submit(admin, "/admin/apps/notes", name="Notes", redirect_uris="http://example.com")
    assert wrong.status_code == 422
    assert re.search(r'id="notes-uris-error">([^<]*)<', wrong.text)[1] == TEXTS["fields"]["redirect_uris"]  # type: ignore[index]
    assert ">http://example.com</textarea>" in wrong.text
    assert submit(admin, "/admin/apps/notes", name="Notes & more", redirect_uris=CALLBACK).status_code == 303
    page = admin.call("GET", "/admin/apps").text
    assert f">{CALLBACK}</textarea>" in page
    assert "<bdi>Notes & more</bdi>" in unescape(page)
    assert submit(admin, "/admin/apps/notes/remove").headers["location"] == "/admin/apps?done=app-removed"
    assert submit(admin, "/admin/apps/notes/remove").status_code == 404


def test_a_failed_job_says_why_and_is_started_again(muster: Muster, admin: Browser, read_only_admin: Browser) -> None:
    account = muster.new_account()
    started = muster.client.post("/api/jobs/statement", json={}, headers=account.tokens().bearer).json()
    here, retry = page_of(account), f"/admin/jobs/{started['id']}/retry"
    job = started["id"].replace("-", "") if muster.on_sqlite else started["id"]
    fail = "UPDATE job SET state = 'failed', error = 'It broke.' WHERE id = :id AND state = 'done' RETURNING id"
    wait_for(lambda: muster.sql(fail, id=job), what="the job's end")
    for path in (here, "/admin/jobs"):
        page = admin.call("GET", path).text
        assert ("It broke." in page, retry in page) == (True, True)
        assert retry not in read_only_admin.call("GET", path).text
    assert submit(read_only_admin, retry, next=here).status_code == 404
    assert submit(admin, retry, next="//evil.example").headers["location"] == "/admin/jobs?done=retried"
    again = submit(admin, retry, next=here)
    assert again.status_code == 409
    assert "This has not failed and was not canceled" in again.text
    wait_for(lambda: "It broke." not in admin.call("GET", here).text, what="another attempt")


def test_the_state_of_the_service_is_shown(admin: Browser) -> None:
    page = admin.call("GET", "/admin/system").text
    state = admin.call("GET", "/api/system").json()
    assert f"Version {state['version']}" in page
    assert f"migration {state['database']['migration']}" in page
    assert ">available</span>" in page
    assert "Not set up" in page
