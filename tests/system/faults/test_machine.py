"""Faults of the machine: no room for what is written, no memory to share, a clock that jumps.

On real processes with toy weights. A server that sees another disk has a mount namespace of its
own; a clock is moved for one server alone, by a library that is loaded before the system's.
"""

import email.utils
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import httpx
import pytest

from anytime_model.kernels.build import cache_folder
from system.conftest import ROOT, Running, wait_for
from system.faults.executor_faults import (
    ask,
    crowd,
    eventually,
    executor_pid,
    has_ended,
    is_ready,
    picture,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SMALL = picture(64, 96)
LARGE = 1200
"""Side in px of images that take a while."""
DAY_S = 24 * 3600


def command(weights):
    line = [sys.executable, "-m", "anytime_server.cli", "serve", "--port", "0"]
    return [*line, "--weights", str(weights), "--threads", "1", "--profile-size", "64x96"]


def after_mount(mount, line):
    """A command that runs after a mount that nobody else sees."""
    namespace = ["unshare", "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, mount], check=False).returncode:
        pytest.skip("no mount namespaces here")
    return [*namespace, f'{mount} && exec "$@"', "sh", *line]


@contextmanager
def started(line, log, **options):
    """A server's process, which ends in order."""
    with log.open("wb") as file:
        process = subprocess.Popen(line, stdout=file, stderr=file, cwd=ROOT, **options)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(20) == 0


def assert_all_complete(found):
    assert all(len(found.ends[name]) == 1 for name in found.admitted), found.ends
    assert set(found.outcomes) == {"complete"}
    assert set(found.statuses) == {200}


def test_a_system_that_gives_no_memory_to_share_ends_the_server_with_one_clear_line(tiny):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    done = subprocess.run(
        command(tiny),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        preexec_fn=limit,
    )
    assert done.returncode == 1
    assert "shared" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_small_read_only_dev_shm_is_enough(tiny, tmp_path):
    line = after_mount("mount -t tmpfs -o size=64k,ro tmpfs /dev/shm", command(tiny))
    with started(line, tmp_path / "log") as process:
        wait_for(r"INFO +ready$", tmp_path / "log", process)


def test_a_full_disk_harms_no_request_and_no_new_executor(tiny, tmp_path):
    """There is no room for the log, temporary files and caches; the executor is killed besides."""
    disk = tmp_path / "disk"
    disk.mkdir()
    logging = ["sh", "-c", f'exec "$@" 2> {disk}/log', "sh", *command(tiny)]
    line = after_mount(f"mount -t tmpfs -o size=64k tmpfs {disk}", logging)
    places = dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME"), str(disk))
    env = os.environ | places | {"ANYTIME_KERNEL_CACHE": str(cache_folder())}
    with started(line, tmp_path / "out", env=env) as process:
        seen = Path(f"/proc/{process.pid}/root{disk}")
        eventually((seen / "log").exists)
        port = int(wait_for(r"running on http://127\.0\.0\.1:(\d+)", seen / "log", process)[1])
        wait_for(r"INFO +ready$", seen / "log", process)
        server = Running(process, seen / "log", port, "street")
        with pytest.raises(OSError, match="No space"):
            (seen / "rest").write_bytes(bytes(2**17))
        with crowd(server, side=LARGE) as found:
            url = f"{server.url}/v1/models/street/predict"
            form = {"image": ("image.png", picture(400, 400), "image/png")}
            answer = httpx.post(url, files=form, timeout=60, trust_env=False)
            assert answer.status_code == 200
            assert ask(server, b"no image").status_code == 422
        assert_all_complete(found)
        os.kill(executor_pid(server), signal.SIGKILL)  # whose death and successor are logged
        eventually(lambda: not is_ready(server))
        eventually(lambda: is_ready(server))
        assert ask(server, SMALL).status_code == 200


@pytest.fixture
def wall_clock(tmp_path):
    """A library that moves the clock of who loads it, and the file that says by how much."""
    library, file = tmp_path / "wall_clock.so", tmp_path / "seconds"
    source = Path(__file__).with_name("wall_clock.c")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    file.write_bytes(struct.pack("q", 0))
    return file, {"LD_PRELOAD": str(library), "WALL_CLOCK": str(file)}


def ahead_of_us_s(server):
    """How much later the server says it is than it is here, s."""
    date = httpx.get(f"{server.url}/livez", trust_env=False).headers["date"]
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def test_no_deadline_and_no_request_notices_that_the_clock_jumps(start, wall_clock):
    seconds, environment = wall_clock
    with start("--hang-s", "3", environment=environment) as server:
        ask(server, SMALL)
        pid = executor_pid(server)
        for moved_s in accumulate((3600, DAY_S, -2 * DAY_S, -400 * DAY_S, 401 * DAY_S)):
            with crowd(server, side=LARGE) as found:
                with seconds.open("r+b") as file:
                    file.write(struct.pack("q", moved_s))
                began = time.monotonic()
                answer = ask(server, SMALL, X_Deadline_Ms="3000")
                assert answer.status_code == 200
                assert time.monotonic() - began < 3.5
            assert_all_complete(found)
            eventually(lambda ahead_s=moved_s: abs(ahead_of_us_s(server) - ahead_s) < 30, 10)
            assert is_ready(server)
        assert executor_pid(server) == pid
        assert not has_ended(pid)
        assert "Traceback" not in server.text()
