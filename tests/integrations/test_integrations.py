"""The integrations, each in an environment of its own with the SDK of its host.

They are skipped where that is not there. The server is a real process with the shipped weights.
"""

import ast
import os
import subprocess

import pytest

from ecosystem.environments import INTEGRATIONS, ROOT, folder, is_complete, python_of
from system.conftest import SHIPPED, run_server

HERE = ROOT / "tests" / "integrations"
PATHS = (ROOT, ROOT / "client", ROOT / "tests" / "ecosystem" / "clients")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with run_server(SHIPPED, tmp_path_factory.mktemp("log") / "server.log") as server:
        yield server.url


@pytest.mark.timeout(330)
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(INTEGRATIONS))
def test_an_integration_works_with_the_sdk_of_its_host(name, request, tmp_path):
    if not is_complete(name):
        pytest.skip(f"{folder() / name} is not there; `make test-ecosystem` makes it")
    script = HERE / f"{name}_checks.py"
    command = [str(python_of(name)), str(script), request.getfixturevalue("url"), str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ANYTIME_")}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, PATHS)), "HOME": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed check_" in done.stdout


def test_integrations_use_the_public_client_alone():
    found = set()
    for path in (ROOT / "integrations").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ImportFrom(module=str(module)):
                    found.add(module.split(".")[0])
                case ast.Import(names=names):
                    found |= {alias.name.split(".")[0] for alias in names}
    assert {name for name in found if name.startswith("anytime_")} == {"anytime_client"}
