"""The real executor with a toy network: loading, stopping, crashing, hanging."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from anytime_server.executor.commands import WorkerSettings
from anytime_server.executor.control import Shared
from anytime_server.executor.process import ProcessExecutor

from anytime_protocol.enums import Task
from anytime_server.executor.base import (
    ExecutorCallError,
    ExecutorCrashedError,
    ExecutorStartError,
    StageDone,
    StageStopped,
    View,
)
from server.weights_fakes import make_weights

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)
MOST = 100_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"))


def executor_of(weights, **changes):
    settings = WorkerSettings(weights, (), "torch", "cpu", 1, (64, 64))
    return ProcessExecutor(settings, MOST, **changes)


def misbehave(pipe, shared, settings):
    """A child that says it is ready and then does what its weights' name says."""
    pipe.send(())
    pipe.recv()
    match settings.weights.name:
        case "hang":
            time.sleep(60)
        case "lie":
            pipe.send("nonsense")
            pipe.recv()
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)


def die(pipe, shared, settings):
    os._exit(3)


async def test_a_whole_life(weights):
    executor = executor_of(weights)
    try:
        served = await executor.start()
        assert [model.info.task for model in served] == [Task.SEGMENTATION, Task.POSE]
        assert all(stage.seconds(1.0) > 0 for stage in served[0].profile.sizes[0].stages)
        assert (
            0.0
            < served[0].profile.reaction_s
            < sum(stage.seconds(1.0) for stage in served[0].profile.sizes[0].stages)
        )
        gmacs = [exit_.gmacs for exit_ in served[0].info.exits]
        assert gmacs == sorted(gmacs)

        executor.begin("a", "street", IMAGE)
        executor.begin("p", "pose", IMAGE)
        for stage in range(1, 5):
            done = await executor.run("a", stage, View())
            assert isinstance(done, StageDone)
            assert done.picture.exit == stage
            assert done.picture.labels.shape == (48, 70)
            assert 0 <= done.result.confidence <= 1
            assert done.result.gmacs > 0
        half = await executor.show("a", View(0.5, confidence=True, active=True))
        assert half.labels.shape == half.confidence.shape == half.active.shape == (24, 35)
        quarter = await executor.show("a", View(0.25, confidence=True))
        assert quarter.labels.shape == quarter.confidence.shape == (12, 18)
        assert np.array_equal(half.labels, done.picture.labels[::2, ::2])

        await executor.run("p", 1)
        pose = await executor.show("p", View(heatmaps=True))
        assert pose.keypoints.shape == (3, 3)
        assert pose.heatmaps.shape == (3, 12, 18)
        assert ((pose.keypoints[:, 2] >= 0) & (pose.keypoints[:, 2] <= 1)).all()

        with pytest.raises(ExecutorCallError, match="KeyError"):
            await executor.run("nobody", 1)
        executor.forget("a")
        await asyncio.sleep(0.05)
        with pytest.raises(ExecutorCallError):
            await executor.show("a", View())

        # Stopping: the exits before are kept, and the stage can be made again.
        executor.begin("s", "street", np.zeros((300, 300, 3), np.uint8))
        await executor.run("s", 1)
        running = asyncio.ensure_future(executor.run("s", 2))
        await asyncio.sleep(0)
        executor.stop()
        stopped = await running
        assert isinstance(stopped, StageStopped)
        assert (await executor.show("s", View())).exit == 1
        again = await executor.run("s", 2, View())
        assert again.picture.exit == 2

        # A job that follows one of the same id is not forgotten in its place.
        executor.begin("f", "street", IMAGE)
        executor.forget("f")
        executor.begin("f", "street", IMAGE)
        await asyncio.sleep(0.05)
        assert isinstance(await executor.run("f", 1), StageDone)
        executor.forget("f")
        await asyncio.sleep(0.05)
        with pytest.raises(ExecutorCallError):
            await executor.run("f", 2)

        # Several at once.
        executor.begin("t", "street", IMAGE)
        done = await executor.run("t", 1, View(), through=4)
        assert done.picture.exit == 4
        quiet = executor.made()
        assert [exit_.result.gmacs > 0 for exit_ in quiet] == [True] * 3
        assert executor.made() == ()

        # Crashing, and starting again.
        first = executor.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ExecutorCrashedError, match="-9"):
            await executor.run("s", 3)
        with pytest.raises(ExecutorCrashedError):
            await executor.show("s", View())
        await executor.start()
        assert executor.pid != first
        executor.begin("a", "street", IMAGE)
        assert isinstance(await executor.run("a", 1), StageDone)
    finally:
        await executor.close()
    assert executor.pid is None


async def test_missing_weights_are_told(tmp_path):
    executor = executor_of(tmp_path / "nothing")
    with pytest.raises(ExecutorStartError, match="manifest"):
        await executor.start()
    await executor.close()


async def test_a_child_that_dies_while_loading_is_told(tmp_path):
    executor = executor_of(tmp_path, target=die)
    with pytest.raises(ExecutorStartError, match="exit code 3"):
        await executor.start()
    await executor.close()


async def test_a_native_crash_is_told_with_its_signal(tmp_path):
    executor = executor_of(tmp_path / "crash", target=misbehave)
    await executor.start()
    with pytest.raises(ExecutorCrashedError, match="-11"):
        await executor.run("a", 1)
    await executor.close()


async def test_a_stage_that_ignores_a_stop_is_killed(tmp_path):
    executor = executor_of(tmp_path / "hang", target=misbehave, hang_s=0.05)
    await executor.start()
    running = asyncio.ensure_future(executor.run("a", 1))
    await asyncio.sleep(0)
    executor.stop()
    with pytest.raises(ExecutorCrashedError, match="-9"):
        await running
    await executor.close()


async def test_an_unexpected_answer_is_an_error_of_the_call(tmp_path):
    executor = executor_of(tmp_path / "lie", target=misbehave)
    await executor.start()
    with pytest.raises(ExecutorCallError, match="str"):
        await executor.run("a", 1)
    await executor.close()


async def test_closing_before_starting_is_no_error(tmp_path):
    executor = executor_of(tmp_path)
    executor.stop()
    executor.forget("a")
    await executor.close()
    await executor.close()
    with pytest.raises(ExecutorStartError):
        await executor.start()


def test_the_servers_own_process_does_without_torch():
    code = "import sys; sys.modules['torch'] = None; import anytime_server.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_image_beyond_the_shared_memory_is_refused():
    shared = Shared.allocate(100)
    with pytest.raises(ValueError, match="363 bytes, at most 300"):
        shared.write_image(np.zeros((11, 11, 3), np.uint8))
    small = IMAGE[:10, :10]
    assert np.array_equal(shared.read_image(shared.write_image(small)), small)
