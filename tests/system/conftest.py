"""A real server process on a free port of the loopback interface, with toy or shipped weights."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from server.weights import make_weights

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "weights"


@dataclass
class Running:
    """A server process."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    model: str
    """A segmentation model that it serves."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def text(self) -> str:
        return self.log.read_text()


def wait_for(pattern: str, log: Path, process: subprocess.Popen[bytes]) -> re.Match[str]:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        found = re.search(pattern, log.read_text(), re.MULTILINE)
        if found:
            return found
        assert process.poll() is None, f"the server ended:\n{log.read_text()}"
        time.sleep(0.05)
    raise AssertionError(f"no {pattern!r} in the server's log:\n{log.read_text()}")


@contextmanager
def run_server(
    weights: Path,
    log: Path,
    *flags: str,
    ready: bool = True,
    program: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """A server of its own.

    Args:
        weights: folder.
        log: file.
        flags: of `anytime-server serve`.
        ready: waits until the models are loaded.
        program: in place of `anytime-server`.
        environment: variables beside ours, of which those of the server are left out.
    """
    command = [sys.executable, *(["-m", "anytime_server.cli"] if program is None else [program])]
    command += ["serve", "--port", "0"]
    command += ["--weights", str(weights), "--threads", "1", "--profile-size", "64x96", *flags]
    ours = {k: v for k, v in os.environ.items() if not k.startswith("ANYTIME_")}
    env = ours | dict(environment or {})
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file, cwd=ROOT, env=env)
    try:
        port = int(wait_for(r"running on http://127\.0\.0\.1:(\d+)", log, process)[1])
        if ready:
            wait_for(r"INFO +ready$", log, process)
        model = "street"
        if ready:
            models = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).json()
            model = next(m["name"] for m in models["models"] if m["task"] == "segmentation")
        yield Running(process, log, port, model)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session", params=["tiny", "shipped"])
def running(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    if request.param == "shipped" and not (SHIPPED / "manifest.toml").is_file():
        pytest.skip("there are no shipped weights yet")
    weights = tiny if request.param == "tiny" else SHIPPED
    log = tmp_path_factory.mktemp("log") / "server.log"
    with run_server(weights, log) as server:
        yield server


@pytest.fixture
def start(tiny: Path, tmp_path: Path) -> Callable[..., object]:
    """Starts a server of one's own: `with start("--flag") as server`."""

    def begin(*flags: str, weights: Path = tiny, **how: object) -> object:
        return run_server(weights, tmp_path / "server.log", *flags, **how)

    return begin


@pytest.fixture(scope="module")
def browser():
    """A Chromium, where playwright is installed."""
    with import_module("system.browser").chromium() as opened:
        yield opened
