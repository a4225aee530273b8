"""axe-core finds nothing on the page in any of its states; skipped where it is not installed."""

from importlib import resources

import pytest

from model.factories import save_tiny
from system.browser import (
    CHROMIUM,
    STORE_TOKEN,
    TOKEN,
    expect,
    open_page,
    set_deadline,
)
from system.factories import save_slow
from system.processes import real_server

pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    save_tiny(folder, task="pose", name="pose")
    save_slow(folder)
    with real_server(folder, "--token", TOKEN) as address:
        yield address


def violations(page):
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_state_of_the_page_has_a_violation(browser, url, scheme, width):
    size = {"width": width, "height": 844}
    # The page's policy lets no script of another origin in, axe's included.
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#access")).to_be_visible()
    assert violations(page) == []
    page.evaluate(STORE_TOKEN)
    open_page(page, url)
    assert violations(page) == []
    page.get_by_text("Confidence", exact=True).click()
    page.locator("#samples button").last.click()
    expect(page.locator("#model")).to_have_value("pose")
    assert violations(page) == []
    page.locator("#model").select_option("slow")
    set_deadline(page, 0)
    page.locator("#run").click()  # the run that the slider has changed may have a map already
    expect(page.locator("#status")).to_have_attribute("data-kind", "error")
    expect(page.locator("#fix")).to_be_visible()
    assert violations(page) == []
    context.close()
