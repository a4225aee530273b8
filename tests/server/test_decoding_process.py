"""The process that decodes: the same pixels, and ended in the middle of an image."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from anytime_protocol.enums import ErrorCode
from anytime_server import images
from anytime_server.decoding_process import (
    DecodingCrashedError,
    DecodingProcess,
    DecodingStoppedError,
)
from anytime_server.errors import ImageRejectedError
from anytime_server.image_headers import ImageHeader
from server.factories import image_file
from server.hostile_files import EMPTY_SCAN, jpeg

MOST = 2**25


@pytest.fixture
def process():
    with closing(DecodingProcess()) as process:
        yield process


def decode(process, file, side=None, token=None):
    return process.decode(token or object(), file, images.probe(file, MOST), side)


def decode_slow(process, token=None):
    """Decodes a file that takes some 10 s, and would be refused by its header."""
    file = jpeg((2048, 2048), progressive=True)[:-2] + EMPTY_SCAN * 30_000 + b"\xff\xd9"
    process.decode(token, file, ImageHeader("image/jpeg", 2048, 2048), None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("side", [None, 20])
def test_it_finds_the_pixels_that_a_thread_finds(process, kind, side):
    file = image_file(kind, (90, 120))
    here = images.decode(file, images.probe(file, MOST), side)
    there = decode(process, file, side)
    assert np.array_equal(here.image, there.image)
    assert there.size == here.size == (90, 120)
    assert there.cpu_s > 0
    assert there.elapsed_s > 0


def test_what_it_refuses_is_refused_and_the_next_image_is_decoded(process):
    damaged = image_file("JPEG").replace(b"\xff\xc4\0\x1f\0", b"\xff\xc4\0\x1f\x77")
    with pytest.raises(ImageRejectedError, match="it is damaged") as caught:
        decode(process, damaged)
    assert caught.value.code is ErrorCode.BAD_IMAGE
    assert decode(process, image_file()).image.ndim == 3


def stop_when_busy(process, token, stop):
    def wait_and_stop():
        while process._current is not token:
            time.sleep(0.001)
        time.sleep(0.05)
        stop()

    thread = threading.Thread(target=wait_and_stop)
    thread.start()
    return thread


def test_an_image_is_given_up_in_the_middle_and_the_next_one_is_decoded(process):
    token = object()
    process.start()
    began = time.monotonic()
    thread = stop_when_busy(process, token, lambda: process.stop(token))
    with pytest.raises(DecodingStoppedError):
        decode_slow(process, token)
    assert time.monotonic() - began < 5
    thread.join()
    assert decode(process, image_file()).image.ndim == 3


def test_stopping_what_is_over_or_has_not_begun_stops_nothing_else(process):
    decode(process, image_file(), token="a")
    process.stop("a")
    process.stop("b")
    assert decode(process, image_file(), token="b").image.ndim == 3


def test_closing_ends_it_in_the_middle_of_an_image(process):
    token = object()
    process.start()
    thread = stop_when_busy(process, token, process.close)
    with pytest.raises(DecodingStoppedError):
        decode_slow(process, token)
    thread.join()
    with pytest.raises(DecodingStoppedError):
        decode(process, image_file())


def test_an_image_that_takes_too_long_is_refused():
    with closing(DecodingProcess(longest_s=1)) as process:
        with pytest.raises(ImageRejectedError, match="more than 1 s, make it smaller") as caught:
            decode_slow(process)
        assert caught.value.code is ErrorCode.BAD_IMAGE
        assert decode(process, image_file()).image.ndim == 3


def test_a_crash_is_told_and_the_next_image_is_decoded(process):
    process.start()
    os.kill(process._child.process.pid, signal.SIGSEGV)
    with pytest.raises(DecodingCrashedError, match="exit code -11"):
        decode(process, image_file())
    assert decode(process, image_file()).image.ndim == 3


def test_it_does_not_listen_to_signals_that_are_meant_for_the_server(process):
    decode(process, image_file())
    pid = process._child.process.pid
    for meant_for_the_server in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, meant_for_the_server)
    assert decode(process, image_file()).image.ndim == 3
    assert process._child.process.pid == pid


SERVER_THAT_IS_KILLED = """
import os, signal
from anytime_server.decoding_process import DecodingProcess
process = DecodingProcess()
process.start()
print(process._child.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_the_server_however_that_ends():
    done = subprocess.run(
        [sys.executable, "-c", SERVER_THAT_IS_KILLED], stdout=subprocess.PIPE, check=False
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_imports_images_and_no_more():
    command = "import sys, anytime_server.decoding_process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"torch", "fastapi", "uvicorn", "asyncio"}
