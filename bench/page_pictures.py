"""The pictures of the page in docs/, taken in Chromium from a server that does nothing else.

    make page-pictures      # python bench/page_pictures.py --url http://127.0.0.1:8000

Times on them are those of the moment: take them on a quiet machine, with the shipped weights.
"""

import argparse
import io
import re
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RUNS = 5  # of each image before its picture, since the first ones find everything cold
TIGHT = 5  # position of the deadline's slider: 7 ms
MOVE = """position => {
  const slider = document.getElementById("deadline");
  slider.value = String(position);
  for (const name of ["input", "change"]) slider.dispatchEvent(new Event(name, { bubbles: true }));
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pictures")
    options = parser.parse_args()
    expect.set_options(timeout=60_000)
    flags = ["--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)

        def opened(width: int, height: int, scheme: str, scale: float = 1.0) -> Page:
            size = {"width": width, "height": height}
            page = browser.new_page(
                viewport=size, color_scheme=scheme, device_scale_factor=scale, has_touch=width < 500
            )
            page.goto(options.url)
            for _ in range(RUNS):
                run(page)
            return page

        street = opened(1280, 800, "light")
        save(street.screenshot(full_page=True), options.out / "page.png")
        pose = opened(1920, 1080, "dark", 2 / 3)
        pose.locator("#samples button").last.click()
        expect(pose.locator("#canvas")).to_have_attribute("aria-label", re.compile("person with"))
        for _ in range(RUNS):
            run(pose)
        save(pose.screenshot(), options.out / "page-pose.png")
        phone = opened(390, 844, "dark")
        phone.evaluate(MOVE, TIGHT)
        expect(phone.locator("#status")).to_have_attribute("data-kind", "error")
        save(phone.screenshot(), options.out / "page-phone.png")
        browser.close()


def run(page: Page) -> None:
    """Sends the image once more, and waits for its last map."""
    expect(page.locator("#status")).to_contain_text("all exits done")
    page.locator("#run").click()
    expect(page.locator("#status")).to_contain_text("all exits done")


def save(png: bytes, path: Path) -> None:
    """In all its colours: a palette takes those of joints and classes for one another."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
