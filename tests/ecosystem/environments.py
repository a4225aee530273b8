"""Makes an environment for each client of others, as they cannot share ours.

    python tests/ecosystem/environments.py

They are downloaded into `.cache/ecosystem`, or `ANYTIME_ECOSYSTEM` if that is set, 0.7 GB in all.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
DEFAULT = Path(__file__).parents[2] / ".cache" / "ecosystem"


def folder() -> Path:
    """Where the environments are."""
    return Path(os.environ.get("ANYTIME_ECOSYSTEM") or DEFAULT)


def python_of(name: str) -> Path:
    """The interpreter of an environment, which need not exist."""
    parts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return folder().joinpath(name, *parts)


def is_complete(name: str) -> bool:
    """Whether an environment has what its file of requirements says now."""
    note = folder() / name / "requirements.txt"
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    return note.is_file() and note.read_text() == wanted


def make(name: str) -> None:
    """Makes an environment, unless it is complete."""
    if is_complete(name):
        return
    print(f"making the environment of {name}", flush=True)
    requirements = REQUIREMENTS / f"{name}.txt"
    venv.create(folder() / name, with_pip=True, clear=True)
    install = ["-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
    subprocess.run([str(python_of(name)), *install], check=True)
    (folder() / name / "requirements.txt").write_text(requirements.read_text())


def main() -> None:
    """Makes all environments; one that cannot be made does not keep the others from it."""
    failed = []
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        try:
            make(file.stem)
        except subprocess.CalledProcessError:
            failed.append(file.stem)
    if failed:
        sys.exit(f"{', '.join(failed)} could not be installed: is there a package index?")


if __name__ == "__main__":
    main()
