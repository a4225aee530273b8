"""`start.py` decides rightly what to make, and says what to do when it cannot."""

import ast
import importlib.util
import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "start.py"
SPEC = importlib.util.spec_from_file_location("start", FILE)
start = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(start)

VENV, INSTALL, KERNELS = "-m venv", "-m pip install", "build.py"


class FakeSystem:
    """Keeps what was run; commands with a part that is named in `fails` fail and print that."""

    def __init__(self, fails=None, lacks=(), prints=()):
        self.fails = fails or {}
        self.lacks = lacks
        self.prints = prints
        self.ran = []

    def has(self, module):
        return module not in self.lacks

    def capture(self, command):
        words = " ".join(str(part) for part in command)
        self.ran.append(words)
        if VENV in words:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        outputs = [output for part, output in self.fails.items() if part in words]
        return (1, outputs[0]) if outputs else (0, "")

    def stream(self, command, on_line):
        status, output = self.capture(command)
        for line in [*self.prints, *output.splitlines(), None]:
            on_line(line)
        return status

    def made(self):
        """What was made, in order."""
        return [part for words in self.ran for part in (VENV, INSTALL, KERNELS) if part in words]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "constraints.txt").write_text("torch==1")
    return start.Checkout(tmp_path, windows=False)


def set_up(checkout, system):
    out = io.StringIO()
    start.set_up(checkout, system, start.StatusLine(out))
    return out.getvalue()


def test_the_first_start_makes_everything_in_order(checkout):
    system = FakeSystem()
    set_up(checkout, system)
    assert system.made() == [VENV, INSTALL, KERNELS]
    [install] = [words for words in system.ran if INSTALL in words]
    assert install.endswith(f"-c {checkout.root / 'constraints.txt'} -e {checkout.root}[dev]")


def test_the_second_start_only_looks_at_the_kernels(checkout):
    set_up(checkout, FakeSystem())
    system = FakeSystem()
    assert set_up(checkout, system) == ""
    assert system.made() == [KERNELS]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_into_the_same_environment(checkout, name):
    set_up(checkout, FakeSystem())
    (checkout.root / name).write_text("other")
    system = FakeSystem()
    set_up(checkout, system)
    assert system.made() == [INSTALL, KERNELS]


def test_a_folder_that_was_moved_is_installed_anew(checkout):
    set_up(checkout, FakeSystem())
    moved = start.Checkout(
        checkout.root.rename(checkout.root.with_name("elsewhere")), windows=False
    )
    assert not moved.is_installed()


def test_a_failed_installation_is_tried_again_next_time(checkout):
    with pytest.raises(start.SetupError):
        set_up(checkout, FakeSystem({INSTALL: "ERROR: nonsense"}))
    system = FakeSystem()
    set_up(checkout, system)
    assert system.made() == [INSTALL, KERNELS]
    assert checkout.log.read_text() == ""


def test_an_environment_without_pip_is_mended(checkout):
    checkout.python.parent.mkdir(parents=True)
    checkout.python.touch()
    system = FakeSystem({"pip --version": "No module named pip"})
    set_up(checkout, system)
    assert system.made() == [VENV, INSTALL, KERNELS]


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_environments_names_the_package_to_install(checkout, module):
    with pytest.raises(start.SetupError, match=rf"no {module}.\n.*apt install python3-venv"):
        set_up(checkout, FakeSystem(lacks=(module,)))


def test_an_environment_that_cannot_be_made_says_what_python_said(checkout):
    with pytest.raises(start.SetupError, match="read-only"):
        set_up(checkout, FakeSystem({VENV: "Error: read-only file system"}))


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("WARNING: Retrying (Retry(total=0)) after ... NewConnectionError", "Check the network"),
        ("[Errno -3] Temporary failure in name resolution", "Check the network"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED\nNewConnectionError", "PIP_CERT"),
        ("ERROR: Package requires a different Python: 3.9.2 not in '>=3.11'", "Delete it"),
        ("ERROR: No matching distribution found for torch==1", "no build for this Python"),
        ("\n".join(map(str, range(20))), "\n12\n13\n14\n15\n16\n17\n18\n19"),
    ],
)
def test_a_failure_of_pip_comes_with_its_cure(checkout, output, hint):
    with pytest.raises(start.SetupError) as caught:
        set_up(checkout, FakeSystem({INSTALL: output}))
    assert hint in str(caught.value)
    assert str(checkout.log) in str(caught.value)
    assert checkout.log.read_text() == output


def test_without_a_compiler_there_is_one_warning_and_no_error(checkout):
    problem = "There is no C++ compiler (g++). Install g++ 11."
    out = set_up(checkout, FakeSystem({KERNELS: f"{problem}\nmore"}))
    assert out.count("Warning") == 1
    assert problem in out
    assert "more" not in out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  Downloading torch-2.13.0-cp311-linux.whl (180 MB)", "fetching torch 2.13.0 (180 MB)"),
        ("  Using cached rich-15.0.0-py3-none-any.whl.metadata (18 kB)", "fetching rich 15.0.0"),
        ("Processing /w/torch-2.13.0-cp311-linux.whl (from mine==1)", "fetching torch 2.13.0"),
        ("Installing collected packages: a, b, c", "installing 3 packages"),
        (
            "WARNING: Retrying (Retry(total=4, ...)) after ...",
            "the package registry does not answer, trying again",
        ),
        ("Requirement already satisfied: pip", None),
    ],
)
def test_pips_lines_are_told_in_a_few_words(line, told):
    assert start.pip_activity(line) == told


def test_a_terminal_shows_one_line_that_passes_with_the_time():
    out, seconds = Terminal(), iter([0.0, 0.0, 7.0, 8.0, 9.0])
    status_line = start.StatusLine(out, clock=lambda: next(seconds))
    status_line.print("Installing ...")
    status_line.show("fetching torch")
    status_line.show(None)
    status_line.print("Done.")
    shown = [line.split("\x1b[K")[-1] for line in out.getvalue().split("\r")]
    passing = ["     7 s  fetching torch", "     8 s  fetching torch"]
    assert shown == ["", "Installing ...\n", *passing, "Done.\n"]


def test_a_log_gets_news_now_and_then_and_repetitions_seldom():
    told = {1.0: "one", 6.0: "two", 7.0: "three", 12.0: None, 36.0: None, 40.0: "three"}
    out, seconds = io.StringIO(), iter([0.0, *told])
    status_line = start.StatusLine(out, clock=lambda: next(seconds))
    for text in told.values():
        status_line.show(text)
    assert out.getvalue().splitlines() == ["     6 s  two", "    36 s  three"]


def test_windows_keeps_its_interpreter_elsewhere(tmp_path):
    assert start.Checkout(tmp_path, windows=True).python == tmp_path / ".venv/Scripts/python.exe"
    assert start.Checkout(tmp_path, windows=False).python == tmp_path / ".venv/bin/python"


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["fly"], 2), (["--help"], 0)])
def test_unknown_commands_end_with_the_usage(arguments, status, capsys):
    with pytest.raises(SystemExit) as caught:
        start.main(arguments, FakeSystem())
    assert caught.value.code == status
    assert "usage: python3 start.py" in "".join(capsys.readouterr())


def test_an_old_python_is_told_so_instead_of_a_traceback():
    ast.parse(FILE.read_text("utf-8"), feature_version=(3, 6))
    code = (
        "import runpy, sys; sys.version_info = (3, 6, 9); sys.version = '3.6.9 (old)'\n"
        f"runpy.run_path({str(FILE)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("start.py: found Python 3.6.9")
    assert "Traceback" not in done.stderr


def test_a_process_that_is_watched_ends_with_its_watcher():
    code = "import time; print('begun', flush=True); time.sleep(60)"
    began = time.monotonic()

    def on_line(line):
        if line is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start.System().stream([sys.executable, "-c", code], on_line)
    assert time.monotonic() - began < 30


def test_watching_a_process_gives_its_lines_and_its_status():
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)"
    lines_seen = []
    assert start.System().stream([sys.executable, "-c", code], lines_seen.append) == 3
    assert [line for line in lines_seen if line is not None] == ["one", "two"]
