"""Rules of the structure that import-linter cannot say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "anytime_protocol": ROOT / "client/anytime_protocol",
    "anytime_client": ROOT / "client/anytime_client",
    "anytime_model": ROOT / "model/anytime_model",
    "anytime_server": ROOT / "server/anytime_server",
}
SOURCES = sorted(f for folder in PACKAGES.values() for f in folder.rglob("*.py"))
PURE = ("jobs", "limits", "costs", "policy", "scheduler", "forecasts", "timeline")
IMPURE = {"time", "asyncio", "threading", "random", "torch", "fastapi", "logging"}
MAX_LINES = 600


def name(path):
    return str(path.relative_to(ROOT))


def imported(path):
    """Root names of all modules that a file imports, and dotted names of ours."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found | {module.split(".")[0] for module in found}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_states_its_theory_on_top(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name(path)} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_stays_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nobody_imports_a_command_line(path):
    if path.name != "cli.py":
        assert not any(module.endswith(".cli") for module in imported(path))


@pytest.mark.parametrize("module", PURE)
def test_the_servers_core_is_pure(module):
    path = PACKAGES["anytime_server"] / f"core/{module}.py"
    assert not imported(path) & IMPURE


def test_only_executor_and_cli_of_the_server_know_the_model():
    for path in PACKAGES["anytime_server"].rglob("*.py"):
        if path.parent.name != "executor" and path.stem != "cli":
            assert not imported(path) & {"torch", "anytime_model"}, name(path)


def test_the_protocol_needs_nothing_but_the_standard_library():
    for path in PACKAGES["anytime_protocol"].rglob("*.py"):
        outside = (
            {m.split(".")[0] for m in imported(path)}
            - set(sys.stdlib_module_names)
            - {"anytime_protocol"}
        )
        assert not outside, name(path)
        assert not imported(path) & {"asyncio", "time"}, name(path)


def test_the_client_runs_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['anytime_model'] = None; "
        "sys.modules['anytime_server'] = None; import anytime_client"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_importing_the_packages_prints_nothing_and_starts_nothing():
    code = (
        "import anytime_protocol, anytime_client, anytime_model, anytime_server, threading; "
        "assert threading.active_count() == 1"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
