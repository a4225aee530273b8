#!/usr/bin/env python3
"""Asks PyPI's advisories for known holes in what `constraints.txt` pins: `make audit`.

Exit status 1 if there are any. Without a network, or where the package index that is in use keeps
no advisories, it says so and ends with 0, so that such a machine can still check the rest.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".cache" / "audit"
PINS = ROOT / "constraints.txt"


def main() -> str | None:
    """What is wrong; None if nothing is."""
    program = ENVIRONMENT / "bin" / "pip-audit"
    if not program.is_file():
        venv.create(ENVIRONMENT, with_pip=True)
        install = [ENVIRONMENT / "bin" / "pip", "install", "--quiet", "pip-audit>=2.9"]
        if subprocess.run(install, check=False).returncode:
            return not_audited("pip-audit cannot be installed")
    command = [program, "--requirement", PINS, "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return not_audited((done.stderr.strip().splitlines() or ["no answer"])[-1])
    return report(packages)


def report(packages: list[dict[str, Any]]) -> str | None:
    """Prints what was audited.

    Args:
        packages: as pip-audit's JSON has them.

    Returns:
        The holes, one a line; None if there are none.
    """
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        return not_audited("the package index keeps no advisories")
    for package in packages:
        if "skip_reason" in package:
            print(f"not audited: {package['name']}: {package['skip_reason']}")
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in "
        f"{', '.join(hole['fix_versions']) or 'no version yet'}"
        for package in known
        for hole in package["vulns"]
    ]
    print(f"{len(known)} of {len(packages)} pinned packages audited, {len(holes)} advisories")
    return "\n".join(holes) or None


def not_audited(why: str) -> None:
    """Says that nothing was audited."""
    print(f"NOT AUDITED: {why}. Nothing is known about the pinned packages.")


if __name__ == "__main__":
    sys.exit(main())
