"""The README's JavaScript in a page of another origin than the server's, in a real Chromium."""

import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from model.factories import save_tiny
from system.browser import CHROMIUM, expect
from system.processes import real_server
from system.test_readme_examples import JAVASCRIPT, ROOT

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]
PAGE = """<!doctype html><title>loading</title><canvas></canvas>
<script type="module">
import { show } from "./show.js";
const image = await (await fetch("street.jpg")).blob();
try {
  await show(image, document.querySelector("canvas"));
  document.title = "shown";
} catch (error) {
  document.title = String(error);
}
</script>"""


@contextmanager
def site(folder):
    """A folder as a web site of its own; yields its origin."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_it_draws_a_map_where_its_origin_is_named_and_nowhere_else(browser, tmp_path):
    weights, files = tmp_path / "weights", tmp_path / "site"
    weights.mkdir()
    files.mkdir()
    save_tiny(weights)
    shutil.copy(ROOT / "client" / "web" / "protocol.js", files)
    shutil.copy(ROOT / "client" / "web" / "samples" / "street-1.jpg", files / "street.jpg")
    (files / "index.html").write_text(PAGE)
    with (
        site(files) as named,
        site(files) as other,
        real_server(weights, "--origins", named) as url,
    ):
        imports, code = JAVASCRIPT.replace("http://127.0.0.1:8000", url).split("\n\n", 1)
        shown = f"{imports}\nexport async function show(image, canvas) {{\n{code}}}\n"
        (files / "show.js").write_text(shown)
        page = browser.new_page()
        page.goto(named)
        expect(page).to_have_title("shown")
        pixels = page.evaluate(
            """() => {
              const { width, height } = document.querySelector("canvas");
              const context = document.querySelector("canvas").getContext("2d");
              const { data } = context.getImageData(0, 0, width, height);
              return [width, height, data.filter((value, at) => at % 4 === 3 && value).length];
            }"""
        )
        assert pixels == [480, 360, 480 * 360]
        page.goto(other)
        expect(page).to_have_title("TypeError: Failed to fetch")
        page.close()
