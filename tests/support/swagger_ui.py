"""Swagger UI in a browser: what a person clicks there, and what it stores."""

from playwright.sync_api import Locator, Page, expect

from tests.support.servers import Account

STORED = "() => [{...localStorage}, {...sessionStorage}]"
EMPTY: list[dict[str, str]] = [{}, {}]


def begin_authorizing(page: Page) -> tuple[Page, Locator]:
    """The window that Authorize opens, and the dialog that waits for its answer."""
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".modal-ux")
    with page.expect_popup() as opened:
        dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
    return opened.value, dialog


def read_me(page: Page, account: Account) -> None:
    operation = page.locator("#operations-account-readMe")
    if not operation.get_by_role("button", name="Execute").is_visible():
        operation.get_by_role("button").first.click()
    with page.expect_response("**/api/users/me") as answered:
        operation.get_by_role("button", name="Execute").click()
    assert answered.value.status == 200
    expect(operation.locator(".live-responses-table")).to_contain_text(account.email)
