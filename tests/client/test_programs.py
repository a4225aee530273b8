"""The installed programs, before and without the packages that they need."""

import subprocess
import sys
from importlib import import_module

import pytest
from typer.main import get_command

RUN = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise {error}

sys.meta_path.insert(0, Finder())
sys.argv = [{program!r}, "--help"]
import anytime_programs
anytime_programs.{program}()
"""
NOT_INSTALLED = "ModuleNotFoundError(f'No module named {name!r}', name=name)"


def run(program, error, *packages):
    code = RUN.format(program=program, error=error, packages=packages)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("program", "package", "name", "extra"),
    [
        ("anytime_server", "fastapi", "anytime-server", "server"),
        ("anytime_model", "torch", "anytime-model", "model"),
    ],
)
def test_a_program_that_lacks_a_package_says_in_one_line_what_to_install(
    program, package, name, extra
):
    done = run(program, NOT_INSTALLED, package)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{name}: the package {package} is not installed here, which it needs; "
        f"run: pip install 'anytime-dense[{extra}]'\n"
    )


@pytest.mark.parametrize("program", ["anytime", "anytime_server"])
def test_an_interrupt_during_the_imports_leaves_no_traceback(program):
    done = run(program, "KeyboardInterrupt", "pydantic")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_program_runs_with_what_it_needs():
    done = run("anytime", NOT_INSTALLED, "torch", "fastapi")
    assert (done.returncode, "predict" in done.stdout) == (0, True), done.stderr


def test_a_broken_package_of_ours_is_no_missing_one():
    done = run("anytime_server", NOT_INSTALLED, "anytime_server")
    assert "ModuleNotFoundError: No module named 'anytime_server'" in done.stderr


@pytest.mark.parametrize(
    "module", ["anytime_client.cli.app", "anytime_model.cli.app", "anytime_server.cli"]
)
def test_the_help_of_every_command_fits_in_80_columns(module):
    commands = get_command(import_module(module).app).commands
    lines = [line for command in commands.values() for line in (command.help or "").splitlines()]
    assert [line for line in lines if len(line) > 77] == []  # a space stands before each
