"""The protocol needs nothing but the standard library, and none of its effects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anytime_protocol

FOLDER = Path(anytime_protocol.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")

PROBE = """
import importlib, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(f"anytime_protocol.{name}")
new = {name.split(".")[0] for name in set(sys.modules) - before}
foreign = new - set(sys.stdlib_module_names) - {"anytime_protocol"}
effects = new & {"asyncio", "socket", "threading", "selectors", "ssl", "random", "logging"}
print(*sorted(foreign | effects))
"""


def test_every_module_imports_with_the_standard_library_alone() -> None:
    command = [sys.executable, "-S", "-c", PROBE, *MODULES]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(FOLDER.parent)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_no_module_asks_for_the_time() -> None:
    for path in FOLDER.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "import time" not in source
        assert "datetime" not in source
