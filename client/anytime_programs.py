"""The programs `anytime`, `anytime-model` and `anytime-server` as they are installed.

The client's package alone can be installed, and importing any of the three takes a moment. This
module needs the standard library alone, so that a package that is missing is told in one line with
what to install, and Ctrl-C during the imports ends without a traceback.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec


def anytime() -> None:
    """The program `anytime`."""
    _run("anytime", "anytime_client.cli", "anytime-dense", "numpy")


def anytime_model() -> None:
    """The program `anytime-model`."""
    _run("anytime-model", "anytime_model.cli", "anytime-dense[model]", "torch")


def anytime_server() -> None:
    """The program `anytime-server`."""
    _run("anytime-server", "anytime_server.cli", "anytime-dense[server]", "fastapi")


def _run(program: str, module: str, requirement: str, needed: str) -> None:
    """Runs the `main` of a module; without the package that is needed it prints nothing else."""
    try:
        if find_spec(needed) is None:
            raise ModuleNotFoundError(name=needed)
        import_module(module).main()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package.startswith("anytime_"):
            raise
        sys.stderr.write(
            f"{program}: the package {package} is not installed here, which it needs; "
            f"run: pip install '{requirement}'\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
