"""Sets this checkout up and runs it: `python3 start.py demo`, `python3 start.py test`.

Needs Python and its standard library alone. Only what is missing or out of date is made: the
virtual environment, its packages (`pyproject.toml` and `constraints.txt` say which) and the native
kernels (`kernels/build.py` compiles them). The usual failures are reported with their cure.

Everything that it makes lies in `.venv`; deleting that folder undoes it. Kernels lie in the user's
cache folder. Exit codes: that of the command; 2 if the set-up failed; 130 for Ctrl-C.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - read by any Python 3.6 or later, to say this
    sys.exit(
        f"start.py: found Python {sys.version.split()[0]} ({sys.executable}), expected 3.11 or "
        "later.\nInstall a newer one and name it: python3.12 start.py demo"
    )

import argparse
import hashlib
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent
KERNELS = Path("model", "anytime_model", "kernels", "build.py")

COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "setup": ("only set up", ()),
    "demo": (
        "start the server, stream a street through all exits, leave its page running",
        ("-m", "anytime_client.cli", "demo", "--weights", "weights", "--out", "artifacts/demo"),
    ),
    "serve": (
        "run the server in the foreground (http://127.0.0.1:8000)",
        ("-m", "anytime_server.cli", "serve"),
    ),
    "test": ("run all tests, or those named after it", ("-m", "pytest")),
}
"""Name: what it is for, and what Python runs for it in the virtual environment."""

PIP_FAILURES: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full. The packages take about 3 GB, with the CUDA build of PyTorch 8 GB.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "The package registry's certificate is not trusted here. Name your network's own "
        "certificate in PIP_CERT.",
    ),
    (
        r"requires a different Python",
        "The folder .venv was made by a Python that is too old. Delete it and try again.",
    ),
    (
        r"NewConnectionError|NameResolutionError|name resolution|ProxyError|ReadTimeoutError"
        r"|ConnectTimeoutError|Network is unreachable|Read timed out",
        "The package registry cannot be reached. Check the network; behind a proxy set "
        "HTTPS_PROXY, for a mirror PIP_INDEX_URL. What was already downloaded is kept.",
    ),
    (
        r"No matching distribution found",
        "A package has no build for this Python or system. Python 3.11 and 3.12 on Linux, macOS "
        "and Windows should have all: python3.12 start.py ... after deleting .venv.",
    ),
)
"""What pip's output looks like, and the cure; the first that is found counts."""


class SetupError(Exception):
    """The set-up cannot go on; its message says why and what to do."""


@dataclass(frozen=True)
class Checkout:
    """Where a checkout's environment lies.

    Attributes:
        root: the checkout.
        windows: whether the system is Windows, whose environments look different.
    """

    root: Path
    windows: bool = os.name == "nt"

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.venv / ("Scripts/python.exe" if self.windows else "bin/python")

    @property
    def stamp(self) -> Path:
        """Holds the fingerprint of what was installed last."""
        return self.venv / ".installed"

    @property
    def log(self) -> Path:
        """All that pip said."""
        return self.venv / "install.log"

    def fingerprint(self) -> str:
        """Changes whenever the packages have to be installed anew, so too if the folder moves."""
        digest = hashlib.sha256(str(self.root).encode())
        for name in ("pyproject.toml", "constraints.txt"):
            digest.update(b"\0" + (self.root / name).read_bytes())
        return digest.hexdigest()

    def is_installed(self) -> bool:
        """Whether the environment holds what the checkout asks for."""
        known = self.stamp.read_text("utf-8") if self.stamp.is_file() else ""
        return self.python.exists() and known == self.fingerprint()


class System:
    """The effects: processes and this interpreter's modules. Tests bring their own."""

    def has(self, module: str) -> bool:
        """Whether this Python has a module."""
        return find_spec(module) is not None

    def capture(self, command: Sequence[str | Path]) -> tuple[int, str]:
        """Runs a short command; its exit status, and all that it printed."""
        done = subprocess.run(  # noqa: S603 - commands of this file alone
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def stream(self, command: Sequence[str | Path], on_line: Callable[[str | None], None]) -> int:
        """Runs a long command.

        Args:
            command: to run.
            on_line: called with each line that it prints, and with None after each silent second.

        Returns:
            Its exit status.
        """
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with subprocess.Popen(  # noqa: S603 - commands of this file alone
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:

            def read() -> None:
                for line in process.stdout or ():
                    lines.put(line.rstrip())
                lines.put(None)

            threading.Thread(target=read, daemon=True).start()
            try:
                while True:
                    try:
                        line = lines.get(timeout=1.0)
                    except queue.Empty:
                        on_line(None)
                        continue
                    if line is None:
                        return process.wait()
                    on_line(line)
            except BaseException:
                process.terminate()
                raise

    def replace_process(self, command: Sequence[str | Path]) -> int:
        """Runs the command that everything was for, which has the terminal and Ctrl-C to itself."""
        os.chdir(ROOT)
        if os.name == "posix":
            sys.stdout.flush()
            os.execv(command[0], [str(part) for part in command])  # noqa: S606 - as above
        return subprocess.call(command)  # noqa: S603 - as above


class StatusLine:
    """What a person sees: lines that stay, and on a terminal one that passes.

    Args:
        out: where to.
        clock: seconds.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._rewrites = out.isatty()
        self._began = self._shown = clock()
        self._passing = ""

    def print(self, text: str) -> None:
        """A line that stays; the time of what comes counts from now."""
        self.clear()
        self._out.write(f"{text}\n")
        self._out.flush()
        self._began = self._shown = self._clock()
        self._passing = ""

    def show(self, text: str | None) -> None:
        """A line that passes, with the time so far; None repeats the one before.

        Where lines cannot be rewritten, news is printed every 5 s at most, and the rest every 30 s.
        """
        now = self._clock()
        due_s = 30.0 if text in {None, self._passing} else 5.0
        self._passing = text or self._passing
        line = f"  {now - self._began:4.0f} s  {self._passing}"
        if self._rewrites:
            self.clear()
            self._out.write(line[: shutil.get_terminal_size().columns - 1])
        elif now - self._shown >= due_s:
            self._shown = now
            self._out.write(f"{line}\n")
        self._out.flush()

    def clear(self) -> None:
        """Takes a passing line away."""
        if self._rewrites:
            self._out.write("\r\x1b[K")
            self._out.flush()


def pip_activity(line: str) -> str | None:
    """What a line of pip's output says it does, in a few words; None for all other lines."""
    found = re.match(r"\s*(?:Downloading|Using cached|Processing) (\S+)(?: \((\d.*)\))?", line)
    if found:
        name = re.split(r"[/\\]", found[1])[-1]
        parts = name.removesuffix(".metadata").split("-")
        size = f" ({found[2]})" if found[2] and not name.endswith(".metadata") else ""
        return f"fetching {' '.join(parts[:2])}{size}"
    found = re.match(r"Installing collected packages: (.*)", line)
    if found:
        return f"installing {found[1].count(',') + 1} packages"
    if "Retrying (Retry(" in line:
        return "the package registry does not answer, trying again"
    return None


def remedy(output: str) -> str:
    """What to do about pip's failure, by its output."""
    for pattern, text in PIP_FAILURES:
        if re.search(pattern, output):
            return text
    return "Its last lines may say why:\n" + "\n".join(output.splitlines()[-8:])


def set_up(checkout: Checkout, system: System, status_line: StatusLine) -> None:
    """Makes what is missing or out of date.

    Raises:
        SetupError: something cannot be made.
    """
    if not checkout.is_installed():
        make_environment(checkout, system, status_line)
        install(checkout, system, status_line)
    build_kernels(checkout, system, status_line)


def make_environment(checkout: Checkout, system: System, status_line: StatusLine) -> None:
    """Makes the virtual environment, or mends one that has no pip.

    Raises:
        SetupError: this Python cannot.
    """
    if (
        checkout.python.exists()
        and not system.capture([checkout.python, "-m", "pip", "--version"])[0]
    ):
        return
    missing = [name for name in ("venv", "ensurepip") if not system.has(name)]
    if missing:
        raise SetupError(
            f"This Python ({sys.executable}) cannot make virtual environments: it has no "
            f"{' and no '.join(missing)}.\nOn Debian and Ubuntu: apt install python3-venv. "
            "Then start again."
        )
    status_line.print("Making the virtual environment .venv ...")
    status, output = system.capture([sys.executable, "-m", "venv", checkout.venv])
    if status:
        raise SetupError(
            f"The virtual environment {checkout.venv} cannot be made:\n{output.strip()}\n"
            "Delete that folder if it is there. On Debian and Ubuntu: apt install python3-venv."
        )


def install(checkout: Checkout, system: System, status_line: StatusLine) -> None:
    """Installs this checkout, editable, with all that it needs at the tested versions.

    Raises:
        SetupError: pip failed.
    """
    status_line.print(
        "Installing packages; PyTorch is the large one, some minutes the first time ..."
    )
    checkout.stamp.unlink(missing_ok=True)
    lines: list[str] = []

    def on_line(line: str | None) -> None:
        if line is not None:
            lines.append(line)
        status_line.show(pip_activity(line) if line is not None else None)

    status_line.show("looking for packages")
    pip = (checkout.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input")
    packages = ("-c", checkout.root / "constraints.txt", "-e", f"{checkout.root}[dev]")
    status = system.stream([*pip, "--progress-bar", "off", *packages], on_line)
    output = "\n".join(lines)
    checkout.log.write_text(output, "utf-8")
    if status:
        raise SetupError(f"pip failed; {checkout.log} has all that it said.\n{remedy(output)}")
    checkout.stamp.write_text(checkout.fingerprint(), "utf-8")
    status_line.print("Packages are installed.")


def build_kernels(checkout: Checkout, system: System, status_line: StatusLine) -> None:
    """Compiles the native kernels unless these are there; without a compiler, a warning.

    The builder runs as a file: as a module it would import PyTorch first, which takes seconds.
    """
    lines: list[str] = []

    def on_line(line: str | None) -> None:
        if line is None:
            status_line.show("compiling the native kernels")
        else:
            lines.append(line)

    status = system.stream([checkout.python, checkout.root / KERNELS], on_line)
    status_line.clear()
    if status:
        why = lines[0] if lines else "The builder said nothing."
        status_line.print(
            f"Warning: no native kernels, so PyTorch computes: all works, but slower.\n  {why}"
        )


def main(arguments: Sequence[str] | None = None, system: System | None = None) -> int:
    """Sets up, then runs the command; its exit status."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="start.py",
        usage="python3 start.py COMMAND [ITS OPTIONS]",
        description="Sets this checkout up in .venv, then runs a command:\n\n"
        + "\n".join(f"  {name:{width}}  {purpose}" for name, (purpose, _) in COMMANDS.items()),
        epilog="The first set-up takes minutes, later ones less than a second.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    checkout, system = Checkout(ROOT), system or System()
    try:
        set_up(checkout, system, StatusLine(sys.stdout))
    except (SetupError, OSError) as error:
        sys.stderr.write(f"start.py: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nstart.py: stopped; the next start goes on from here\n")
        return 130
    command = COMMANDS[chosen.command][1]
    return system.replace_process([checkout.python, *command, *chosen.rest]) if command else 0


if __name__ == "__main__":
    sys.exit(main())
