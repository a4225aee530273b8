"""Coroutines on a thread of their own: results, errors, and how the thread ends."""

import asyncio
import gc
import threading

import pytest

from anytime_client.loop_thread import LoopThread


@pytest.fixture
def loop():
    return LoopThread()


def test_a_coroutine_gives_its_result_or_raises_its_error(loop):
    async def divide(a, b):
        return a / b

    assert loop.run(divide(6, 3)) == 2
    with pytest.raises(ZeroDivisionError):
        loop.run(divide(6, 0))


def test_it_runs_on_the_threads_loop_and_not_in_the_callers_thread(loop):
    async def where():
        return threading.current_thread().name, asyncio.get_running_loop()

    name, first = loop.run(where())
    assert name == "anytime-client" != threading.current_thread().name
    assert loop.run(where()) == (name, first)


def test_it_serves_a_caller_that_has_a_loop_itself(loop):
    async def one():
        return 1

    async def caller():
        return loop.run(one())

    assert asyncio.run(caller()) == 1


def test_an_interrupted_caller_cancels_the_coroutine(loop, monkeypatch):
    started, cancelled = threading.Event(), threading.Event()

    async def endless():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt(future, timeout=None):
        assert started.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run(endless())
    assert cancelled.wait(5)


def test_a_clean_up_may_start_on_the_loops_own_thread(loop):
    cleaned = threading.Event()

    async def clean_up():
        cleaned.set()

    async def on_the_thread():
        loop.finish(clean_up())

    loop.run(on_the_thread())
    assert cleaned.wait(5)


def test_the_thread_ends_with_the_last_reference():
    loop = LoopThread()
    thread = loop._thread
    assert thread.is_alive()
    del loop
    gc.collect()
    assert not thread.is_alive()


def test_after_the_loops_end_a_clean_up_is_dropped(loop):
    started = []

    async def clean_up():
        started.append(True)

    loop._end()  # what the interpreter calls on its way out
    loop.finish(clean_up())
    assert started == []
