"""The README's examples of the client's use run as they stand, against a real server."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from model.factories import save_tiny
from system.processes import real_server

ROOT = Path(__file__).parents[2]
USE = (ROOT / "README.md").read_text("utf-8").split("## Use it")[1].split("\n## ")[0]
PYTHON, VIDEO = re.findall(r"```python\n(.*?)```", USE, flags=re.DOTALL)
(JAVASCRIPT,) = re.findall(r"```js\n(.*?)```", USE, flags=re.DOTALL)
COMMANDS = re.findall(r"^    ((?:anytime|curl) (?:.*\\\n)*.*)$", USE, flags=re.MULTILINE)
NODE = """
import {{ readFileSync }} from "node:fs";
const image = readFileSync("street.jpg");
const shown = [];
const canvas = {{ getContext: () => ({{ putImageData: ({{ data }}) => shown.push(data) }}) }};
globalThis.ImageData = class {{ constructor(data) {{ this.data = data; }} }};
{code}
const opaque = (data) => data.filter((value, at) => at % 4 === 3 && value === 255).length;
console.log(JSON.stringify([canvas.width, canvas.height, shown.map(opaque)]));
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder, name="camvid-lite")
    with real_server(folder) as address:
        yield address


@pytest.fixture
def run(url, tmp_path):
    """Runs a command in a folder with an image, the server's address in place of the usual."""
    shutil.copy(ROOT / "client" / "web" / "samples" / "street-1.jpg", tmp_path / "street.jpg")
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "ANYTIME_URL": url,
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
    }

    def do(*command):
        done = subprocess.run(
            [part.replace("http://127.0.0.1:8000", url) for part in command],
            capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return do


def test_the_video_example_answers_the_frames_of_a_folder(run, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(3):
        image = ROOT / "client" / "web" / "samples" / "street-1.jpg"
        shutil.copy(image, tmp_path / "frames" / f"{number}.jpg")
    lines = run(sys.executable, "-c", VIDEO).splitlines()
    assert lines[-1].split()[0] == "3"  # the newest is always answered


def test_the_python_example_prints_every_exit(run):
    lines = run(sys.executable, "-c", PYTHON).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[0].endswith("(360, 480)")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_javascript_example_draws_the_map_of_every_exit(run, tmp_path):
    shutil.copy(ROOT / "client" / "web" / "protocol.js", tmp_path / "protocol.js")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    code = NODE.format(code=JAVASCRIPT)
    width, height, opaque = json.loads(run("node", "--input-type=module", "-e", code))
    assert (width, height) == (480, 360)
    assert opaque[-1] == 480 * 360
    assert 1 <= len(opaque) <= 4  # a newer map may replace one that waits


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[:2]))
def test_the_shells_examples_work(run, command, tmp_path):
    program = command.split()[0]
    if shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        pytest.skip(f"{program} is not installed")
    # The tiny network needs less than the deadlines of the examples only on an idle machine.
    run("sh", "-c", re.sub(r"(-ms|-Ms:) 80", r"\1 60000", command))
    if "map.png" in command:
        with Image.open(tmp_path / "map.png") as picture:
            assert picture.size == (480, 360)


def test_every_way_has_its_example():
    assert [command.split()[0] for command in COMMANDS] == ["anytime", "anytime", "curl"]
