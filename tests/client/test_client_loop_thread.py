"""Coroutines on a thread of their own: answers, errors, and how the thread ends."""

import asyncio
import gc
import threading

import pytest

from anytime_client.loop_thread import LoopThread


@pytest.fixture
def loop():
    return LoopThread()


def test_a_coroutine_gives_its_answer_or_raises_its_error(loop):
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
    begun, cancelled = threading.Event(), threading.Event()

    async def endless():
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt(future, timeout=None):
        assert begun.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run(endless())
    assert cancelled.wait(5)


def test_the_last_word_may_be_said_on_the_loops_own_thread(loop):
    said = threading.Event()

    async def say():
        said.set()

    async def on_the_thread():
        loop.finish(say())

    loop.run(on_the_thread())
    assert said.wait(5)


def test_the_thread_ends_with_the_last_reference():
    loop = LoopThread()
    thread = loop._thread
    assert thread.is_alive()
    del loop
    gc.collect()
    assert not thread.is_alive()


def test_after_the_programs_end_there_is_nothing_left_to_finish(loop):
    begun = []

    async def begin():
        begun.append(True)

    loop._end()  # what the interpreter calls on its way out
    loop.finish(begin())
    assert begun == []
