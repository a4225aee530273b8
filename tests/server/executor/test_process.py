"""The real executor with a toy network: loading, stopping, crashing, hanging."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import uvloop

from anytime_protocol.enums import Task
from anytime_server.core.decisions import STOP, RunLimits
from anytime_server.errors import ExecutorCallError, ExecutorCrashedError, ExecutorStartError
from anytime_server.executor import process
from anytime_server.executor.base import RenderOptions, RunCommand
from anytime_server.executor.messages import WorkerSettings
from anytime_server.executor.process import ProcessExecutor
from server.executor.children import (
    answer_large,
    die,
    listen,
    misbehave,
    report_late,
    stand_still,
    without_kernels,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)
MAX_PIXELS = 100_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from server.weights import make_weights  # noqa: PLC0415 - children import this module

    return make_weights(tmp_path_factory.mktemp("weights"))


def executor_of(weights, engine="torch", **changes):
    settings = WorkerSettings(weights, (), engine, "cpu", 1, (64, 64))
    return ProcessExecutor(settings, MAX_PIXELS, **changes)


def command(job_id="a", stage=1, last=None, *, image=None, model="street", **changes):
    limits = RunLimits(tuple(range(stage, (last or stage) + 1)))
    size = (0, 0) if image is None else image.shape[:2]
    return RunCommand(job_id, model, stage, limits, image, size, **changes)


def unexpected():
    """The executor dies while nothing waits for it."""
    raise AssertionError("the executor died")


def ignore(rendered):
    """Takes no note of an exit."""


def nothing():
    """Ignores the end of a run."""


@pytest.mark.slow
async def test_a_whole_life(weights):
    executor = executor_of(weights)
    try:
        served = await executor.start(unexpected)
        assert [model.info.task for model in served] == [Task.SEGMENTATION, Task.POSE]
        assert served[0].profile.reaction_s > 0.0
        gmacs = [exit_.gmacs for exit_ in served[0].info.exits]
        assert gmacs == sorted(gmacs)
        assert served[0].info.measured_size == (64, 64)

        # One run of all stages, each exit rendered.
        shown = []
        each = command("a", 1, 4, image=IMAGE, render=RenderOptions(), each_exit=True)
        ends = []
        end = await executor.run(each, shown.append, lambda: ends.append(len(shown)))
        assert ends[-1] == 3
        assert [rendered.exit for rendered in shown] == [1, 2, 3]
        assert end.rendered.exit == 4
        assert end.rendered.labels.shape == (48, 70)
        reports = executor.take_exits()
        assert [report.exit for report in reports] == [1, 2, 3, 4]
        assert all(0 <= r.confidence <= 1 and r.gmacs > 0 for r in reports)
        assert executor.take_exits() == []

        half = await executor.render("a", RenderOptions(0.5, confidence=True, active=True))
        assert half.labels.shape == half.confidence.shape == half.active.shape == (24, 35)
        assert np.array_equal(half.labels, end.rendered.labels[::2, ::2])
        quarter = await executor.render("a", RenderOptions(0.25, confidence=True))
        assert quarter.labels.shape == quarter.confidence.shape == (12, 18)

        await executor.run(command("p", model="pose", image=IMAGE), ignore, nothing)
        pose = await executor.render("p", RenderOptions(heatmaps=True))
        assert pose.keypoints.shape == (3, 3)
        assert pose.heatmaps.shape == (3, 12, 18)
        assert ((pose.keypoints[:, 2] >= 0) & (pose.keypoints[:, 2] <= 1)).all()

        with pytest.raises(ExecutorCallError, match="KeyError"):
            await executor.run(command("nobody"), ignore, nothing)

        # Stopping: the exits before are kept, and the stage can be computed again.
        large = np.zeros((300, 300, 3), np.uint8)
        await executor.run(command("s", image=large), ignore, nothing)
        running = asyncio.ensure_future(executor.run(command("s", 2), ignore, nothing))
        await asyncio.sleep(0)
        executor.set_limits(STOP)
        assert (await running).wasted_s > 0.0
        assert (await executor.render("s", RenderOptions())).exit == 1
        again = await executor.run(command("s", 2, render=RenderOptions()), ignore, nothing)
        assert again.rendered.exit == 2

        # A job that follows one of the same id is not forgotten in its place.
        executor.forget("s")
        await executor.run(command("s", image=IMAGE), ignore, nothing)
        assert (await executor.render("s", RenderOptions())).exit == 1
        executor.forget("s")
        await asyncio.sleep(0.05)
        with pytest.raises(ExecutorCallError):
            await executor.render("s", RenderOptions())

        # Crashing, and starting again.
        first = executor.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ExecutorCrashedError, match="-9"):
            await executor.run(command("a", 1, image=IMAGE), ignore, nothing)
        with pytest.raises(ExecutorCrashedError):
            await executor.render("a", RenderOptions())
        await executor.start(unexpected)
        assert executor.pid != first
        await executor.run(command("a", 1, image=IMAGE), ignore, nothing)
        assert [report.exit for report in executor.take_exits()] == [1]
    finally:
        await executor.close()
    assert executor.pid is None


@pytest.mark.slow
async def test_a_run_stops_by_itself_when_its_time_is_up(weights):
    executor = executor_of(weights)
    try:
        await executor.start(unexpected)
        late = command("a", 1, 4, image=IMAGE)
        limits = RunLimits((1, 2, 3, 4), stop_at_s=time.monotonic())
        end = await executor.run(late._replace(limits=limits), ignore, nothing)
        assert end.wasted_s > 0.0
        assert len(executor.take_exits()) < 4
    finally:
        await executor.close()


@pytest.mark.slow
async def test_a_slower_engine_that_had_to_be_taken_is_logged_by_the_child(weights, capfd):
    executor = executor_of(weights, engine="auto", target=without_kernels)
    try:
        served = await executor.start(unexpected)
        assert all(model.engine.startswith("torch") for model in served)
    finally:
        await executor.close()
    assert "WARNING falling back to the torch engine" in capfd.readouterr().err


@pytest.mark.slow
async def test_missing_weights_are_reported(tmp_path):
    executor = executor_of(tmp_path / "nothing")
    with pytest.raises(ExecutorStartError, match="manifest"):
        await executor.start(unexpected)
    await executor.close()


async def test_a_child_that_dies_while_loading_is_reported(tmp_path):
    executor = executor_of(tmp_path, target=die)
    with pytest.raises(ExecutorStartError, match="exit code 3"):
        await executor.start(unexpected)
    await executor.close()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [("crash", ExecutorCrashedError, "-11"), ("lie", ExecutorCallError, "str")],
)
async def test_a_child_that_misbehaves_is_an_error_of_the_run(tmp_path, name, error, words):
    executor = executor_of(tmp_path / name, target=misbehave)
    await executor.start(unexpected)
    with pytest.raises(error, match=words):
        await executor.run(command(), ignore, nothing)
    await executor.close()


async def test_a_run_without_a_sign_of_life_is_killed(tmp_path):
    executor = executor_of(tmp_path / "hang", target=misbehave, hang_s=0.05)
    await executor.start(unexpected)
    with pytest.raises(ExecutorCrashedError, match="-9"):
        await executor.run(command(), ignore, nothing)
    await executor.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
async def test_a_child_that_stands_still_while_it_loads_is_killed(tmp_path):
    executor = executor_of(tmp_path, target=stand_still, loading_s=0.5)
    with pytest.raises(ExecutorStartError, match="-9"):
        await executor.start(unexpected)
    await executor.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_the_end_of_an_idle_child_is_noticed_and_another_can_be_started(
    tmp_path, monkeypatch, sent
):
    monkeypatch.setattr(process, "_PING_S", 0.1)
    failed = asyncio.Event()
    executor = executor_of(tmp_path, target=listen, hang_s=0.2)
    await executor.start(failed.set)
    os.kill(executor.pid, sent)
    async with asyncio.timeout(20):
        await failed.wait()
    await executor.start(unexpected)
    await executor.close()


async def test_an_idle_child_that_answers_pings_lives_on(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_PING_S", 0.05)
    executor = executor_of(tmp_path, target=listen, hang_s=2.0)
    await executor.start(unexpected)
    first = executor.pid
    await asyncio.sleep(4.0)
    assert executor.pid == first
    await executor.close()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signals_that_go_to_the_whole_process_group_leave_the_child_alone(tmp_path, sent):
    executor = executor_of(tmp_path, target=report_late)
    starting = asyncio.ensure_future(executor.start(unexpected))
    while executor.pid is None:
        await asyncio.sleep(0)
    os.kill(executor.pid, sent)
    await starting
    os.kill(executor.pid, sent)
    with pytest.raises(ExecutorCallError, match="alive"):
        await executor.run(command(), ignore, nothing)
    await executor.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


async def test_closing_before_starting_is_no_error(tmp_path):
    executor = executor_of(tmp_path)
    executor.set_limits(STOP)
    executor.forget("a")
    await executor.close()
    await executor.close()
    with pytest.raises(ExecutorStartError):
        await executor.start(unexpected)


def test_the_servers_own_process_does_without_torch():
    code = "import sys; sys.modules['torch'] = None; import anytime_server.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_map_that_does_not_fit_into_shared_memory_comes_through_the_pipe():
    async def render_one():
        executor = executor_of(Path("none"), target=answer_large)
        try:
            await executor.start(unexpected)
            return await executor.render("a", RenderOptions())
        finally:
            await executor.close()

    rendered = uvloop.run(render_one())  # the server's loop, which reads pipes without blocking
    assert rendered.labels.shape == (4000, 4000)
    assert np.array_equal(rendered.labels[0], np.arange(4000) % 256)
