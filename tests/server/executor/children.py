"""What the executor's process runs in tests in place of the real thing.

A module of its own, as each new process imports it: it must not import the networks.
"""

import os
import signal
import time
from contextlib import suppress

import numpy as np

from anytime_server.executor.base import RenderedExit
from anytime_server.executor.messages import Fault, Started
from anytime_server.executor.process import work


def misbehave(pipe, memory, settings):
    """A child that is ready, and then does what its weights' name says."""
    pipe.send(Started(()))
    pipe.recv()
    match settings.weights.name:
        case "hang":
            time.sleep(60)
        case "lie":
            pipe.send("nonsense")
            pipe.recv()
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)


def listen(pipe, memory, settings):
    """A child that shows a sign of life for each command."""
    pipe.send(Started(()))
    with suppress(EOFError):
        while True:
            pipe.recv()
            memory.control.beat[0] = time.monotonic()


def report_late(pipe, memory, settings):
    """A child that takes a while to load, and says on its first command that it is alive."""
    time.sleep(0.3)
    pipe.send(Started(()))
    pipe.recv()
    pipe.send(Fault("alive"))
    pipe.recv()


def stand_still(pipe, memory, settings):
    os.kill(os.getpid(), signal.SIGSTOP)


def answer_large(pipe, memory, settings):
    """A child whose rendering has 16 MB."""
    pipe.send(Started(()))
    pipe.recv()
    labels = np.tile((np.arange(4000) % 256).astype(np.uint8), (4000, 1))
    pipe.send(RenderedExit(1, 4000, 4000, labels, None, None, None, None, 0.01))
    with suppress(EOFError):
        pipe.recv()


def die(pipe, memory, settings):
    os._exit(3)


def without_kernels(pipe, memory, settings):
    """A child on a machine where no kernels were compiled."""
    os.environ["ANYTIME_KERNEL_CACHE"] = str(settings.weights / "no-kernels")
    work(pipe, memory, settings)
