"""A real headless browser for tests of the labeling page. Without one, these tests are reported as skipped."""

import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"there is no browser here ({', '.join(NAMES)})")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser) -> Iterator:
    """A function that opens an address in a browser of its own, as another person's; no page may have an error."""
    contexts, faults = [], []

    def opened(address: str, **options):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error"
                and not any(own in line.text for own in ("status of 409", "status of 422", "ERR_CONNECTION")) else None)
        page.goto(address)
        page.wait_for_selector("#frame img, #waiting:not([hidden])")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults, faults
