"""A process that decodes images, one at a time, and can be ended in the middle of one.

No thread can be stopped inside a decoder. So what may take long is decoded in a process of its own:
whoever does not want an image any more kills it, and the next image gets a new one. A fault in a
decoder's native code ends that process and not the server.

The process is a bare interpreter with `images` alone, 45 MB, not a child of multiprocessing, which
would import the server's command line. A timer of the time that it computes ends it, so that it
ends even where nobody is left to kill it; so does its pipe, when it is closed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final

import numpy as np

from anytime_protocol.enums import ErrorCode
from anytime_server import images
from anytime_server.errors import ImageRejectedError
from anytime_server.image_headers import ImageHeader
from anytime_server.images import DecodedImage, bad_image

LONGEST_S: Final = 10
"""Seconds of a core that decoding an image may take; 26 megapixels take one to three."""


class DecodingStoppedError(Exception):
    """Decoding was ended by `Decoding.stop`."""


class DecodingCrashedError(Exception):
    """The process has died while it decoded."""


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    pipe: Connection

    def end(self) -> int:
        """Kills the process; returns its exit code, which is its own if it had ended before."""
        self.pipe.close()
        self.process.kill()
        return self.process.wait()


class DecodingProcess:
    """See the module. One thread calls `decode`; `stop` and `close` may come from any.

    Args:
        longest_s: seconds of a core that decoding an image may take.
    """

    def __init__(self, longest_s: int = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._lock = threading.Lock()  # held for moments: for what is below
        self._child: _Child | None = None
        self._current: object = None
        self._closed = False

    def start(self) -> None:
        """Starts the process if there is none. Blocks for some 0.2 s."""
        if self._child is not None:
            return
        child = self._spawn()
        with self._lock:
            if not self._closed:
                self._child = child
                return
        child.end()

    def decode(
        self, token: object, data: bytes, header: ImageHeader, side: int | None
    ) -> DecodedImage:
        """See `images.decode`. Blocks.

        Args:
            token: names this decoding for `stop`.
            data: the file.
            header: what `images.probe` says of it.
            side: see `images.decode`.

        Raises:
            ImageRejectedError: see there; also if it takes too long.
            DecodingStoppedError: it was stopped.
            DecodingCrashedError: see there.
        """
        self.start()
        with self._lock:
            child = self._child
            if child is None:
                raise DecodingStoppedError
            self._current = token
        try:
            return _request(child.pipe, data, header, side)
        except (EOFError, OSError):
            raise self._ended() from None
        finally:
            with self._lock:
                was_stopped, self._current = self._current is None, None
            if was_stopped:  # it may have been killed just after its answer
                self._end()

    def stop(self, token: object) -> None:
        """Ends a decoding that is under way; any other token is ignored."""
        with self._lock:
            if self._child is not None and self._current is token:
                self._current = None
                self._child.process.kill()

    def close(self) -> None:
        """Ends the process for good."""
        with self._lock:
            self._closed = True
            is_idle, self._current = self._current is None, None
            if self._child is not None:
                self._child.process.kill()
        if is_idle:  # else the thread that waits for an answer cleans up
            self._end()

    def _ended(self) -> Exception:
        """Why there is no answer."""
        with self._lock:
            was_stopped = self._current is None
        code = self._end()
        if code == -signal.SIGPROF:
            return bad_image(f"that took more than {self._longest_s} s, make it smaller")
        if was_stopped:
            return DecodingStoppedError()
        return DecodingCrashedError(f"the decoding process died (exit code {code})")

    def _end(self) -> int | None:
        with self._lock:
            child, self._child = self._child, None
        return None if child is None else child.end()

    def _spawn(self) -> _Child:
        ours, theirs = Pipe()
        arguments = [str(theirs.fileno()), str(self._longest_s)]
        process = subprocess.Popen(  # noqa: S603 (all ours)
            [sys.executable, "-P", "-m", __name__, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()  # so that the process' end is the only one, and its death an end of file
        return _Child(process, ours)


def _request(pipe: Connection, data: bytes, header: ImageHeader, side: int | None) -> DecodedImage:
    pipe.send((header, side))
    pipe.send_bytes(data)
    match pipe.recv():
        case ErrorCode() as code, str() as text:
            raise ImageRejectedError(code, text)
        case shape, size, elapsed_s, cpu_s:
            pixels = np.empty(shape, np.uint8)
            pipe.recv_bytes_into(pixels.data.cast("B"))
            return DecodedImage(pixels, size, elapsed_s, cpu_s)
    raise EOFError


def main(descriptor: int, longest_s: int) -> None:
    """Runs the process until its pipe is closed; the server, which gets signals too, ends it."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    images.configure_pillow()
    images.warm_up()
    pipe = Connection(descriptor)
    with suppress(EOFError, OSError):
        while True:
            header, side = pipe.recv()
            data = pipe.recv_bytes()
            signal.setitimer(signal.ITIMER_PROF, longest_s)
            _answer(pipe, data, header, side)
            signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(pipe: Connection, data: bytes, header: ImageHeader, side: int | None) -> None:
    try:
        decoded = images.decode(data, header, side)
    except ImageRejectedError as error:
        pipe.send((error.code, str(error)))
        return
    pixels = np.ascontiguousarray(decoded.image)
    pipe.send((pixels.shape, decoded.size, decoded.elapsed_s, decoded.cpu_s))
    pipe.send_bytes(pixels.data.cast("B"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
