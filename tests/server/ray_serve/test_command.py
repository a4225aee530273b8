"""`anytime-server ray` where there is no Ray."""

import importlib.util
import subprocess
import sys

from typer.testing import CliRunner

from anytime_server.cli import app


def test_without_ray_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "ray" else find(name, *more),
    )
    done = CliRunner().invoke(app, ["ray"])
    assert done.exit_code == 1
    assert "pip install 'anytime-dense[ray]'" in done.output


def test_its_options_are_checked_like_those_of_serve():
    done = CliRunner().invoke(app, ["ray", "--replicas", "8-1"])
    assert done.exit_code == 2
    assert "the smaller number first" in done.output


def test_the_command_line_imports_no_ray():
    code = "import sys; sys.modules['ray'] = None; import anytime_server.cli"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
