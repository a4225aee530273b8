"""A real Chromium, for tests of the page; without playwright whoever imports this is skipped."""

import shutil
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
TOKEN = "let-me-in"
STORE_TOKEN = f"sessionStorage.setItem('anytime-token', '{TOKEN}')"
expect = sync_api.expect
expect.set_options(timeout=20_000)


@contextmanager
def chromium():
    """A browser; it is closed afterwards."""
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def open_page(page, url):
    page.goto(url)
    expect(page.locator("#status")).to_contain_text("all exits done")


def set_deadline(page, position):
    """Moves the slider as a user does; 0 is 5 ms, too little for any model, 100 is none."""
    page.evaluate(
        """position => {
          const slider = document.getElementById("deadline");
          slider.value = String(position);
          slider.dispatchEvent(new Event("input", { bubbles: true }));
          slider.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        position,
    )
