"""The program `anytime`, run in this process, and a server and an image for it."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from anytime_client import cli
from client.fakes import fake_server


@pytest.fixture(scope="session")
def url():
    with fake_server() as server:
        yield server.url


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path)
    return path


@dataclass(frozen=True)
class Completed:
    returncode: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def anytime(monkeypatch, capsysbinary):
    """Runs the program in this process, which saves its start."""

    def run(url, *arguments):
        monkeypatch.setattr(sys, "argv", ["anytime", "--server", url, *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        captured = capsysbinary.readouterr()
        return Completed(exited.value.code or 0, captured.out, captured.err)

    return run
