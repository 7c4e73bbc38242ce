"""Pages in a browser: whether they are accessible, fit the screen and stay where they are."""

from typing import Any

from playwright.sync_api import Page, ViewportSize

from tests.support.databases import ROOT

# Each document defines it, and runs it when it is called: sending it to each page takes as long as what it does there.
AXE = f"""window.loadAxe = () => {{
{(ROOT / "tests" / "support" / "vendor" / "axe" / "axe.min.js").read_text()}
}};"""
NARROW: ViewportSize = {"width": 360, "height": 800}
WIDE: ViewportSize = {"width": 1280, "height": 800}
# Counts what moves after it was painted, as the browser itself does.
SHIFTS = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => { sum += entry.value; }))
    .observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => requestAnimationFrame(() => done(sum)));
})"""
# Whether words below a chart touch each other.
CROWDED = """() => {
  const words = document.createTreeWalker(document.querySelector(".axis") ?? document.createElement("p"), 4);
  const boxes = [];
  while (words.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(words.currentNode);
    boxes.push(range.getBoundingClientRect());
  }
  return boxes.some((a) => boxes.some((b) => a.x < b.x && b.x < a.right && a.y < b.bottom && b.y < a.bottom));
}"""
# Links of the header, and buttons of a row, that are broken within a word.
BROKEN = """() => [...document.querySelectorAll(".top a, .ledger .edit a")]
  .filter((link) => link.getClientRects().length > 1 || link.offsetHeight > 56).map((link) => link.textContent)"""
# A browser drops the keys that are pressed before it first painted a page. When that was:
PAINTED = """() => new Promise((done) => {
  new PerformanceObserver((list) => done(list.getEntries()[0].startTime)).observe({ type: "paint", buffered: true });
})"""


def check(page: Page, path: str) -> None:
    """Check a page that was opened on a phone: everything in dark; then on a wide screen everything in light, and the
    contrast in dark."""
    check_layout(page, path)
    page.evaluate("loadAxe()")
    page.emulate_media(color_scheme="dark")
    assert serious(page, "resultTypes: ['violations']") == [], f"{path}, dark, on a phone"
    page.set_viewport_size(WIDE)
    assert serious(page, "runOnly: ['color-contrast'], resultTypes: ['violations']") == [], f"{path}, dark"
    page.emulate_media(color_scheme="light")
    assert serious(page, "resultTypes: ['violations']") == [], path
    assert_fits(page, path)
    page.set_viewport_size(NARROW)


def check_layout(page: Page, path: str) -> None:
    page.wait_for_load_state()  # after a click, what is visible may still be without its style sheet
    assert_fits(page, path)
    assert page.evaluate(SHIFTS) < 0.01, f"{path} jumps"


def assert_fits(page: Page, path: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{path} is wider than the screen"
    assert not page.evaluate(CROWDED), path
    assert page.evaluate(BROKEN) == [], path


def serious(page: Page, options: str) -> list[tuple[str, str, str]]:
    found: dict[str, Any] = page.evaluate(f"axe.run({{{options}}})")
    violations = [each for each in found["violations"] if each["impact"] in {"serious", "critical"}]
    return [(each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"]) for each in violations]
