"""The pages' sentences for people: one for everything that can go wrong, and none in the words of the protocol."""

import re
from collections.abc import Iterator
from html import unescape
from importlib import import_module
from typing import Any, get_args

import httpx
import pytest
from pydantic import BaseModel

from app.core.errors import AppError
from app.core.oauth_errors import OAuthError
from app.models import audit, chat, job, oauth_client, operation, refresh_token, user
from app.models.operation import MAX_TEXT
from app.oidc import login  # noqa: F401  # its errors are kinds, too
from app.pages.admin import OTHER_ADDRESS
from app.pages.api_client import ApiError
from app.pages.forms import CORRECT_FIELDS, TEXTS, describe, describe_fields
from tests.support.cookie_browser import Browser
from tests.support.databases import ROOT, SECRET_KEY
from tests.support.html import Elements, submit
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

# No page calls a route that answers with these: they are for programs.
API_ONLY = {"resync-required"}
PROTOCOL = re.compile(
    r"\b(https?|headers?|cursors?|etags?|if-match|retry-after|content-type|origin|status code|requests?|parameters?"
    r"|json|utf-8|schema|payload|scopes?|cookies?|bearer|access tokens?|string should|value error|[45]\d\d)\b",
    re.IGNORECASE,
)
BODIES: list[type[BaseModel]] = [
    refresh_token.SessionUpdate,
    operation.OperationCreate,
    user.UserCreate,
    user.UserAdminUpdate,
    user.RoleUpdate,
    oauth_client.OAuthClientCreate,
    user.EmailChange,
    user.PasswordChange,
    user.AccountDeletion,
    user.PasswordReset,
    job.StatementCreate,
    chat.ChatMessageCreate,
]
METHODS = {f"method-{name}" for name in ("password", "cookie", "code", "provider")}
REASONS = {f"reason-{name}" for name in ("password", "locked", "current-password")}
WITH_PAGES = {f"app.routers.{name}" for name in ("clients", "jobs", "me", "users")}
NEVER_TYPED = {"room", "client_message_id"}


@pytest.fixture(scope="module", autouse=True)
def routers() -> None:
    """The routers whose errors are kinds, too; those of a resource without pages are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_KEYS", SECRET_KEY)  # they read the settings when they are imported
        for name in WITH_PAGES:
            import_module(name)


def kinds(error: type[AppError] = AppError) -> Iterator[str]:
    for kind in set(error.__subclasses__()) - {OAuthError}:
        if kind.__module__ in WITH_PAGES or not kind.__module__.startswith("app.routers."):
            yield kind.type
        yield from kinds(kind)


def sentences() -> Iterator[tuple[str, str]]:
    """Every text that a person can read, with its place."""
    for name, table in TEXTS.items():
        for key, entry in table.items():
            yield from ((f"{name}.{key}", text) for text in ([entry] if isinstance(entry, str) else entry))
    yield from (("in Python", text) for text in (CORRECT_FIELDS, OTHER_ADDRESS))
    for script in (ROOT / "app" / "static").glob("[!d]*.js"):  # docs.js is for developers
        literals = re.findall(r'"([^"\n]*)"|`([^`]*)`', script.read_text())
        yield from ((script.name, text) for pair in literals for text in pair if " " in text)
    for template in (ROOT / "app" / "templates" / "pages").glob("*.html"):
        source = re.sub(r"\{%.*?%\}|\{#.*?#\}", "", template.read_text())
        yield from ((template.name, text) for text in re.findall(r'(?:aria-label|placeholder|title)="(.*?)"', source))
        yield template.name, re.sub(r"<[^>]*>", "", source)


def refusal(kind: str, retry_after: str | None = None, **members: Any) -> ApiError:
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    return ApiError(httpx.Response(400, json={"type": f"/problems/{kind}", **members}, headers=headers))


def test_every_problem_that_reaches_a_page_has_a_sentence() -> None:
    worded = TEXTS["problems"].keys() | TEXTS["sign-in"].keys()
    assert set(kinds()) - worded == API_ONLY | {"sign-in-failed"}, "the text of sign-in-failed is sign-in.other"
    assert worded - set(kinds()) == {"other"}
    for kind in {*TEXTS["problems"], "unheard-of"}:
        heading, sentence = describe(refusal(kind, ticket="0123456789ab"))
        assert re.fullmatch(r"[A-Z][^{}]+[^.{}]", heading), kind
        assert re.fullmatch(r"[A-Z][^{}]+\.", sentence), kind


def test_every_field_of_a_form_has_a_sentence() -> None:
    names = {field.alias or name for body in BODIES for name, field in body.model_fields.items()}
    fields = TEXTS["fields"]
    assert fields.keys() - {"other"} == names - NEVER_TYPED
    assert all(str(MAX_TEXT) in fields[name] for name in ("type", "instrument_type", "figi"))
    assert str(chat.MAX_TEXT) in fields["text"]


def test_every_notice_is_one_that_a_page_leads_to() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "app" / "pages").glob("*.py"))
    assert set(re.findall(r'done"?(?:=|: )"([a-z-]+)"', sources)) == TEXTS["notices"].keys()


def test_every_event_has_a_text() -> None:
    assert TEXTS["events"].keys() == {*get_args(audit.EventName), *METHODS, *REASONS}


def test_no_sentence_is_in_the_words_of_the_protocol() -> None:
    assert [(where, word[0]) for where, text in sentences() for word in PROTOCOL.finditer(text)] == []


def test_validation_messages_of_the_api_are_never_shown() -> None:
    errors = [
        {"loc": ["body", "quantity"], "msg": "Value error, raw", "type": "value_error"},
        {"loc": ["body", "name", "constrained-str"], "msg": "String should be raw", "type": "string_too_long"},
        {"loc": ["query", "unheard_of"], "msg": "raw", "type": "unheard_of"},
        {
            "loc": ["body", "new_password"],
            "msg": "The password needs at least 15 characters.",
            "type": "password_too_short",
        },
    ]
    assert describe_fields(refusal("invalid", errors=errors)) == {
        "quantity": TEXTS["fields"]["quantity"],
        "name": TEXTS["fields"]["name"],
        "unheard_of": TEXTS["fields"]["other"],
        "new_password": "The password needs at least 15 characters.",
    }


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [
        (None, "a moment"),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "a moment"),
        ("1", "a moment"),
        ("40", "40 seconds"),
        ("90", "90 seconds"),
        ("91", "2 minutes"),
        ("3541", "60 minutes"),
        ("86400", "24 hours"),
    ],
)
def test_a_wait_is_described_in_words(retry_after: str | None, wait: str) -> None:
    assert describe(refusal("too-many-requests", retry_after))[1] == f"Too many attempts. Try again in {wait}."


LONG = "a" * 5000
FORMS: list[tuple[str, dict[str, str]]] = [
    ("/register", {"email": "nobody", "name": LONG, "password": LONG}),
    ("/forgot-password", {"email": "a@b@c"}),
    ("/reset-password", {"token": LONG, "new_password": LONG}),
    ("/verify-email", {"token": "a\x00b"}),
    ("/operations/new", {"type": LONG, "instrument_type": LONG, "figi": "", "quantity": "1e99", "date": "today"}),
    ("/account/name", {"name": LONG}),
    ("/account/password", {"current_password": LONG, "new_password": LONG}),
    ("/account/email", {"email": "", "current_password": LONG}),
    ("/account/delete", {"current_password": ""}),
    ("/account/delete", {"current_password": LONG}),
    ("/jobs", {"from": "yesterday", "to": "2023-13-01"}),
]


@pytest.mark.parametrize(("path", "form"), FORMS, ids=lambda each: each if isinstance(each, str) else "")
def test_an_invalid_form_says_what_to_enter(muster: Muster, path: str, form: dict[str, str]) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    assert_fields_explained(submit(browser, path, **form), form)


def test_an_invalid_filter_says_what_to_enter(muster: Muster) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    filters = {"type": LONG, "instrument_type": LONG, "figi": LONG, "from": "x", "to": "x"}
    assert_fields_explained(browser.call("GET", "/operations", params=filters), filters)


def assert_fields_explained(response: Any, form: dict[str, str]) -> None:
    assert response.status_code == 422
    errors = re.findall(r'<p class="error" id="(?:\w+-)?(\w+)-error">(.*?)</p>', response.text)
    assert {name: unescape(text) for name, text in errors} == {name: TEXTS["fields"][name] for name in form}
    assert CORRECT_FIELDS in response.text
    invalid = [attrs["name"] for tag, attrs in Elements(response.text).tags if attrs.get("aria-invalid")]
    assert set(invalid) == set(form)
