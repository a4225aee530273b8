"""The examples of docs/CLIENTS.md run as they stand, against a real server."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.factories import save_tiny
from system.processes import real_server

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "CLIENTS.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"```(?:python|js) (\w+)\n(.*?)```", GUIDE, re.DOTALL))
STREET = ROOT / "client" / "web" / "samples" / "street-1.jpg"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    with real_server(folder) as address:
        yield address


@pytest.fixture
def run(url, tmp_path):
    """Runs code in a folder with an image and the module, the server's address in place."""
    shutil.copy(STREET, tmp_path / "street.jpg")
    shutil.copy(ROOT / "client" / "web" / "protocol.js", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')

    def do(program, code, name, *flags):
        code = code.replace("http://127.0.0.1:8000", url)
        (tmp_path / name).write_text(code.replace("ws://127.0.0.1:8000", url.replace("http", "ws")))
        done = subprocess.run(
            [program, *flags, name],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return do


def test_the_guide_has_every_example():
    assert set(BLOCKS) == {"async", "camera", "http", "websocket"}


def test_many_requests_on_an_event_loop_are_all_answered(run):
    lines = run(sys.executable, BLOCKS["async"], "many.py")
    assert len(lines) == 12
    assert all(line.startswith(("exit ", "failed: ")) for line in lines)


def test_a_camera_is_followed_and_late_frames_are_passed_over(url, capsys):
    class Camera:
        frames = 4

        def read(self):
            self.frames -= 1
            return self.frames >= 0, np.full((48, 64, 3), 60 * self.frames % 256, np.uint8)

    names, shown = {}, []
    code = BLOCKS["camera"].replace("http://127.0.0.1:8000", url)
    exec(compile(code, "docs/CLIENTS.md", "exec"), names)
    show = lambda *what: shown.append(what)  # noqa: E731
    late, skipped = names["follow"](Camera(), show, deadline_ms=60_000)
    assert (late, len(shown) + skipped) == (0, 4)
    for frame, map_, colors, reused_share in shown:
        assert (frame.shape, map_.shape, len(colors)) == ((48, 64, 3), (48, 64), 5)
        assert 0 <= reused_share <= 1
    np.testing.assert_array_equal(shown[-1][0], 0)  # the last frame always wins
    late, skipped = names["follow"](Camera(), show, deadline_ms=0)
    assert late >= 1
    assert late + skipped == 4
    assert "would do" in capsys.readouterr().out


@needs_node
def test_a_map_is_decoded_and_painted_over_http(run):
    code = """
        import { readFile } from "node:fs/promises";
        import { segment } from "./segment.js";
        globalThis.ImageData = class { constructor(data) { this.data = data; } };
        let painted = null;
        const context = { putImageData: (image) => { painted = image.data; } };
        const canvas = { getContext: () => context };
        const image = new Blob([await readFile("street.jpg")], { type: "image/jpeg" });
        const last = await segment("http://127.0.0.1:8000", image, canvas);
        const opaque = painted.filter((value, at) => at % 4 === 3 && value === 255).length;
        const { map } = last.arrays;
        console.log(JSON.stringify([last.exit, canvas.width, canvas.height, opaque, map.shape]));
    """
    lines = run(NODE, BLOCKS["http"], "segment.js") or run(NODE, code, "main.js")
    assert json.loads(lines[-1]) == [4, 480, 360, 480 * 360, [360, 480]]


@needs_node
def test_exits_are_followed_over_a_websocket(run):
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(version.removeprefix("v").split(".")[0])
    if major < 20:
        pytest.skip("this Node has no WebSocket")
    flags = [] if major >= 22 else ["--experimental-websocket"]
    lines = run(NODE, BLOCKS["websocket"], "stream.js", *flags)
    assert lines[0].startswith("1 ")
    assert lines[-1] in {"complete", "satisfied"}


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_module_is_a_package_of_one_file(tmp_path):
    command = ["npm", "pack", str(ROOT / "client" / "web"), "--json", "--offline"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    files = {entry["path"] for entry in json.loads(done.stdout)[0]["files"]}
    assert files == {"package.json", "protocol.js"}
