"""Faults of the process that computes: killed, stopped, out of memory, and what becomes of others.

On real processes with toy weights. Every admitted request has exactly one end, the server is as
large as before, and who was not computed at that moment is served.
"""

import os
import random
import re
import resource
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from system.faults.executor_faults import (
    ask,
    crowd,
    descriptors,
    eventually,
    executor_pid,
    has_ended,
    is_ready,
    picture,
    rss_mb,
)
from system.faults.processes import TRIMMED, assert_given_back, held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SMALL = picture(64, 96)
FAULTY = Path(__file__).with_name("faulty_kernels_server.py")
RED = (250, 0, 0)
"""The first pixel of an image that it fails at."""
LARGE = 1200
"""Side in px of images that take a while."""


def assert_each_ended_once(found):
    assert all(len(found.ends[name]) == 1 for name in found.admitted), found.ends


def test_a_killed_executor_costs_what_it_computed_and_nothing_else(start):
    with start(program=TRIMMED) as server:
        with crowd(server, side=LARGE):
            pass
        before = descriptors(server.process.pid), rss_mb(server.process.pid)
        for seed in range(2):
            with crowd(server, side=LARGE) as found:
                time.sleep(random.Random(seed).uniform(0, 0.3))
                os.kill(executor_pid(server), signal.SIGKILL)
            assert_each_ended_once(found)
            lost = found.outcomes["internal"] + found.statuses[500]
            assert lost <= 1, (found.outcomes, found.statuses)
            assert found.outcomes["complete"] >= len(found.admitted) - 1
            assert ask(server, SMALL).status_code == 200
        eventually(lambda: descriptors(server.process.pid) <= before[0] + 1)
        assert rss_mb(server.process.pid) < before[1] * 1.05 + 5
        assert "Traceback" not in server.text()


def test_of_two_executors_one_is_killed_and_the_other_serves_on(start):
    with start("--executors", "2", program=TRIMMED) as server:
        pids = {int(pid) for pid in re.findall(r"executor (\d+) is ready", server.text())}
        assert len(pids) == 2
        with crowd(server, side=LARGE) as found:
            time.sleep(0.2)
            killed = pids.pop()
            os.kill(killed, signal.SIGKILL)
            assert ask(server, SMALL).status_code == 200
            assert is_ready(server)
        assert_each_ended_once(found)
        assert found.outcomes["internal"] + found.statuses[500] <= 1
        eventually(lambda: not {executor_pid(server)} & {killed, *pids})
        assert "Traceback" not in server.text()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_loss_of_an_idle_executor_is_noticed_and_mended(start, sent):
    with start("--hang-s", "2") as server:
        os.kill(executor_pid(server), sent)
        noticed_s = eventually(lambda: not is_ready(server))
        assert noticed_s < (1.0 if sent == signal.SIGKILL else 12.0)
        refused = ask(server, SMALL)
        assert refused.status_code == 503
        assert refused.json()["code"] == "not-ready"
        assert "retry-after" in refused.headers
        eventually(lambda: is_ready(server))
        assert ask(server, SMALL).status_code == 200


def test_a_deadline_is_kept_by_an_executor_that_stands_still(start):
    with start("--hang-s", "3") as server:
        ask(server, SMALL)
        with crowd(server, sockets=1, each=2, posts=0, side=LARGE) as found:
            os.kill(executor_pid(server), signal.SIGSTOP)
            began = time.monotonic()
            late = ask(server, SMALL, X_Deadline_Ms="300")
            assert time.monotonic() - began < 1.5
            assert late.status_code in {503, 504}
            eventually(lambda: not is_ready(server), 10)
        assert_each_ended_once(found)
        assert found.outcomes["internal"] <= 1


def test_the_request_that_is_computed_is_answered_at_its_deadline_too(start):
    with start("--hang-s", "5") as server:
        pid = executor_pid(server)
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        late = ask(server, picture(LARGE, LARGE), X_Deadline_Ms="1000")
        assert late.status_code == 504
        assert time.monotonic() - began < 2.5
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: ask(server, SMALL).status_code == 200)
        assert executor_pid(server) == pid


def test_an_exception_in_a_kernel_ends_its_request_and_no_other(start):
    """Twenty requests fail in C++ after their first exit, and leave nothing behind."""
    red = picture(256, 256, color=RED)
    with start(program=FAULTY) as server:
        if "native" not in server.text():
            pytest.skip("the native kernels are not built")
        with crowd(server, side=256):
            pass
        expected, pid, before = ask(server, picture(256, 256)).content, executor_pid(server), None
        for _ in range(2):
            with crowd(server, side=256) as found:
                failed = [ask(server, red) for _ in range(10)]
            assert [answer.status_code for answer in failed] == [500] * 10
            assert {answer.json()["code"] for answer in failed} == {"internal"}
            assert "no such exit" in failed[0].json()["detail"]
            assert_each_ended_once(found)
            assert set(found.outcomes) == {"complete"}
            assert set(found.statuses) == {200}
            if before is None:
                before = held(server)
        assert_given_back(server, before)
        assert ask(server, picture(256, 256)).content == expected  # by the same buffers
        assert ask(server, red, "?max_exit=1").status_code == 200
        assert executor_pid(server) == pid


def test_sigterm_to_all_processes_answers_every_request(start):
    with start() as server:
        executor = executor_pid(server)
        with crowd(server, side=LARGE) as found:
            os.kill(executor, signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert_each_ended_once(found)
        assert found.outcomes["internal"] == found.statuses[500] == 0
        assert has_ended(executor)
        assert "Traceback" not in server.text()


def test_a_drain_that_meets_an_executor_that_stands_still_ends_in_time(start):
    with start("--hang-s", "2", "--drain-timeout-s", "20") as server:
        with crowd(server, side=LARGE) as found:
            os.kill(executor_pid(server), signal.SIGSTOP)
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10
        assert_each_ended_once(found)
        assert found.outcomes["internal"] + found.statuses[500] <= 1


@pytest.mark.parametrize("signals", [1, 2], ids=["patience is over", "second signal"])
def test_what_is_left_of_a_drain_gets_its_end_before_sockets_are_closed(start, signals):
    patience = ("0.2", "60")[signals - 1]
    with start("--drain-timeout-s", patience, "--hang-s", "60") as server:
        with crowd(server, side=LARGE) as found:
            os.kill(executor_pid(server), signal.SIGSTOP)
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
        assert server.process.wait(20) == 0
        assert_each_ended_once(found)
        assert set(found.outcomes) == {"draining"}
        assert set(found.statuses) <= {200, 503}
        assert "Traceback" not in server.text()


def test_a_server_that_is_killed_under_load_leaves_nothing_behind(start):
    with start() as server:
        executor = executor_pid(server)
        before = set(Path("/dev/shm").iterdir())
        with crowd(server, side=LARGE):
            server.process.kill()
            server.process.wait(10)
        eventually(lambda: has_ended(executor), 20)
        assert set(Path("/dev/shm").iterdir()) <= before


def test_an_image_for_which_memory_runs_out_is_refused_and_the_others_are_served(start):
    with start() as server:
        pid = executor_pid(server)
        ask(server, SMALL)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 30 * 2**20
        resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
        assert ask(server, picture(1800, 1800)).status_code == 413
        assert ask(server, SMALL).status_code == 200
        assert executor_pid(server) == pid


@pytest.mark.parametrize(
    ("size", "count", "engine_mb"),
    [((1, 32768), 64, 128), ((32768, 1), 64, 128), ((2048, 2048), 4, 400)],
    ids=["wide", "tall", "large"],
)
def test_memory_stays_within_its_bound_whatever_comes_at_once(start, size, count, engine_mb):
    with start("--engine-memory-mb", str(engine_mb)) as server:
        if "native" not in server.text():
            pytest.skip("the native kernels are not built")
        ask(server, SMALL)
        pid = executor_pid(server)
        before, peaks, statuses = rss_mb(pid), [], Counter()
        image = picture(*size)

        def post():
            statuses[ask(server, image, "?scale=0.25&max_exit=2").status_code] += 1

        threads = [threading.Thread(target=post) for _ in range(count)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            peaks.append(rss_mb(pid))
            time.sleep(0.02)
        assert set(statuses) <= {200, 503}, statuses
        assert statuses[200] >= 3
        assert max(peaks) < before + engine_mb + 150  # images and maps of what is under way
        assert executor_pid(server) == pid
        assert "Traceback" not in server.text()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=str)
def test_a_signal_while_the_models_are_loaded_leaves_no_traceback(start, sent):
    if signal.getsignal(sent) is signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as under nohup")
    with start(ready=False) as server:
        time.sleep(0.3)
        server.process.send_signal(sent)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.text()
