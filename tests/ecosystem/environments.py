"""Makes an environment for each client, suite, integration or extra, as they cannot share ours.

    python tests/ecosystem/environments.py [NAME ...]

They are downloaded into `.cache/ecosystem`, or `ANYTIME_ECOSYSTEM` if that is set, 2 GB in all.
"""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHERS = {file.stem: file for file in (Path(__file__).parent / "requirements").glob("*.txt")}
INTEGRATIONS = {
    file.parent.name: file for file in (ROOT / "integrations").glob("*/requirements.txt")
}
EXTRAS = ("ray",)
"""Extras of ours whose dependencies are too many for the environment of all other tests."""

DEFAULT = ROOT / ".cache" / "ecosystem"


def folder() -> Path:
    """Where the environments are."""
    return Path(os.environ.get("ANYTIME_ECOSYSTEM") or DEFAULT)


def python_of(name: str) -> Path:
    """The interpreter of an environment, which need not exist."""
    parts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return folder().joinpath(name, *parts)


def requirements_of(name: str) -> str:
    """What an environment has to have: an integration's has what our client needs as well."""
    if name in EXTRAS:
        found = [sys.executable, str(ROOT / "deploy" / "dependencies.py"), name]
        return subprocess.run(found, check=True, capture_output=True, text=True).stdout
    if name in OTHERS:
        return OTHERS[name].read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return INTEGRATIONS[name].read_text() + "\n".join(project["dependencies"]) + "\n"


def is_complete(name: str) -> bool:
    """Whether an environment has what is required of it now."""
    note = folder() / name / "requirements.txt"
    return note.is_file() and note.read_text() == requirements_of(name)


def make(name: str) -> None:
    """Makes an environment, unless it is complete."""
    if is_complete(name):
        return
    print(f"making the environment of {name}", flush=True)
    venv.create(folder() / name, with_pip=True, clear=True)
    wanted, note = folder() / name / "wanted.txt", folder() / name / "requirements.txt"
    wanted.write_text(requirements_of(name))
    install = ["-m", "pip", "install", "--quiet", "--requirement", str(wanted)]
    if name in EXTRAS:
        install += ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([str(python_of(name)), *install], check=True)
    wanted.rename(note)


def main(*names: str) -> None:
    """Makes environments, by default all; one that cannot be made does not keep others from it."""
    failed = []
    for name in names or sorted({*OTHERS, *INTEGRATIONS, *EXTRAS}):
        try:
            make(name)
        except subprocess.CalledProcessError:
            failed.append(name)
    if failed:
        sys.exit(f"{', '.join(failed)} could not be installed: is there a package index?")


if __name__ == "__main__":
    main(*sys.argv[1:])
