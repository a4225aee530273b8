"""The memory that the server and its executor's process share: control block, images, renderings.

A run is a control block, a few words of shared memory (see `ControlBlock`). The executor checks
them between kernels, so that the server changes a run by writing a word and need never be in time
to stop something; and the server reads from the block how far a run has come, without a message,
which would wake one process by another on the cores that compute.

Arrays lie in shared memory as well, so that what goes through the pipe stays small: a pipe takes
200 kB at a time, and each further piece costs two switches between the processes. There is one
place for an image, as only one command is under way at a time, and there are several places for
renderings, used in turn, as a run goes on while the server reads one. Whoever reads copies at once.
What does not fit goes through the pipe as it is.

The memory is a file without a name, which ends with the two processes, however they end. On Linux
it is no file of `/dev/shm`, whose size containers bound: beyond that bound a write would end the
process.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from anytime_server.core.decisions import ExitReport, RunLimits
from anytime_server.executor.base import RenderedExit
from anytime_server.images import Image

MAX_EXITS: Final = 64
"""Exits that a model may have, as in the protocol."""

_ARRAYS: Final = ("labels", "confidence", "active", "heatmaps")

_RENDERED_BYTES: Final = 4
"""Of a rendering, for each px of the largest image: three maps and the heat-maps of 8 joints."""

_PLACES: Final = 4
"""Places for renderings; pages of those that are never written take no memory."""


class SharedArray(NamedTuple):
    """An array that lies in shared memory.

    Attributes:
        offset: bytes from the start.
        shape: of the array.
        dtype: of the array, as numpy names it.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: str


_CONTROL_BYTES: Final = 2**14
"""At the beginning, for the control block."""

_Word = TypeVar("_Word", ctypes.c_int64, ctypes.c_uint64, ctypes.c_double)


@dataclass(frozen=True, slots=True)
class ControlBlock:
    """The words by which a run is controlled; each is written by one side only.

    Attributes:
        run: number of the run that the other words are about; written by the server.
        path: the stages that the run is to compute, the bit k - 1 for the stage that leads to exit
            k. If the bit of the one that is being computed is cleared, it is stopped; written by
            the server.
        stop_at_s: moment (`time.monotonic`) after which the stage that is being computed is worth
            nothing: the executor stops by itself; written by the server.
        notify: whether to tell the server of each exit, or only of the end; written by the server.
        exits: how many exits the run has made, and a report of each; written by the executor,
            reports before their number.
        taken: how many renderings the server has read since the executor started; written by it.
        engine_bytes: memory that the engines hold for images under way; written by the executor.
        beat: moment (`time.monotonic`) of the executor's last sign of life: it has taken up or done
            a command, or looked whether to stop; written by the executor.

    Every word is an array of one element of 8 bytes: its reads and writes are single machine
    instructions.
    """

    run: ctypes.Array[ctypes.c_int64]
    path: ctypes.Array[ctypes.c_uint64]
    stop_at_s: ctypes.Array[ctypes.c_double]
    notify: ctypes.Array[ctypes.c_int64]
    exits: ctypes.Array[ctypes.c_double]
    taken: ctypes.Array[ctypes.c_int64]
    engine_bytes: ctypes.Array[ctypes.c_int64]
    beat: ctypes.Array[ctypes.c_double]

    @classmethod
    def within(cls, memory: mmap.mmap) -> ControlBlock:
        """The block at the beginning of shared memory."""
        offset = 0

        def words(kind: type[_Word], count: int = 1) -> ctypes.Array[_Word]:
            nonlocal offset
            array = (kind * count).from_buffer(memory, offset)
            offset += ctypes.sizeof(array)
            return array

        return cls(
            run=words(ctypes.c_int64),
            path=words(ctypes.c_uint64),
            stop_at_s=words(ctypes.c_double),
            notify=words(ctypes.c_int64),
            taken=words(ctypes.c_int64),
            engine_bytes=words(ctypes.c_int64),
            beat=words(ctypes.c_double),
            exits=words(ctypes.c_double, 1 + MAX_EXITS * len(ExitReport._fields)),
        )

    def begin(self, run: int, limits: RunLimits) -> None:
        """Starts a run: the server's side, before it sends the command."""
        self.exits[0] = 0
        self.set_limits(limits)
        self.run[0] = run

    def set_limits(self, limits: RunLimits) -> None:
        """Writes how far the run may go: the server's side."""
        self.stop_at_s[0] = limits.stop_at_s
        self.notify[0] = limits.notify
        self.path[0] = sum(1 << (stage - 1) for stage in limits.path)

    def must_stop(self, run: int, stage: int, now: float) -> bool:
        """Whether a stage that is being computed is not wanted any more: the executor's side."""
        self.beat[0] = now
        wanted = self.path[0] >> (stage - 1) & 1
        return bool(not wanted or now > self.stop_at_s[0] or self.run[0] != run)

    def stage_after(self, stage: int) -> int | None:
        """The stage that the run is to go on with; None if there is none: the executor's side."""
        later = self.path[0] >> stage
        return stage + (later & -later).bit_length() if later else None

    def add_exit(self, report: ExitReport) -> None:
        """Notes an exit behind those of this run: the executor's side."""
        count = int(self.exits[0])
        start = 1 + len(report) * count
        self.exits[start : start + len(report)] = list(report)
        # Last, as it says that the report is there. No barrier stands between: x86 keeps stores
        # in order, and elsewhere a store waits for less than the interpreter takes to the next.
        self.exits[0] = count + 1

    def exits_after(self, known: int) -> list[ExitReport]:
        """The exits of this run after the first `known`: the server's side."""
        size = len(ExitReport._fields)
        found = []
        for index in range(known, int(self.exits[0])):
            exit_, *numbers = self.exits[1 + size * index : 1 + size * (index + 1)]
            report = ExitReport._make((int(exit_), *numbers))
            found.append(report._replace(improves=bool(report.improves)))
        return found


class SharedMemory:
    """All memory that is shared; made by `allocate`, and handed to the process at its start.

    Args:
        descriptor: of the file; closed with this object.
        max_pixels: see `allocate`.

    Attributes:
        control: the control block.
        image: bytes of an image.
        rendered: bytes of the arrays of some renderings.
    """

    def __init__(self, descriptor: int, max_pixels: int) -> None:
        self._descriptor, self._max_pixels = descriptor, max_pixels
        weakref.finalize(self, os.close, descriptor)
        memory = mmap.mmap(descriptor, _bytes_for(max_pixels))
        self.control = ControlBlock.within(memory)
        rendered_at = _CONTROL_BYTES + 3 * max_pixels
        self.image = memoryview(memory)[_CONTROL_BYTES:rendered_at]
        self.rendered = memoryview(memory)[rendered_at:]

    @classmethod
    def allocate(cls, max_pixels: int) -> SharedMemory:
        """Memory for images of up to `max_pixels`; larger ones go through the pipe.

        Raises:
            OSError: the system does not give that much.
        """
        if sys.platform == "linux":
            descriptor = os.memfd_create("anytime")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, _bytes_for(max_pixels))
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor, max_pixels)

    def __reduce__(self) -> tuple[Callable[..., SharedMemory], tuple[Any, int]]:
        """The same memory in the process that is being started."""
        return _attach, (reduction.DupFd(self._descriptor), self._max_pixels)

    def write_image(self, image: Image) -> Image | tuple[int, int, int]:
        """Puts an image in its place if it fits; returns its shape, or else the image itself."""
        height, width, channels = image.shape
        if image.size > len(self.image):
            return image
        view = np.frombuffer(self.image, np.uint8, image.size)
        np.copyto(view.reshape(image.shape), image)
        return height, width, channels

    def read_image(self, written: Image | tuple[int, int, int]) -> Image:
        """The image that `write_image` was given: a copy of what is in its place."""
        if not isinstance(written, tuple):
            return written
        shape = written
        size = shape[0] * shape[1] * shape[2]
        return np.frombuffer(self.image, np.uint8, size).reshape(shape).copy()

    def has_place(self, written: int) -> bool:
        """Whether the place of the next rendering has been read.

        Args:
            written: renderings written since the executor started.
        """
        return written - int(self.control.taken[0]) < _PLACES

    def write_rendered(self, rendered: RenderedExit, written: int) -> RenderedExit:
        """Puts a rendering's arrays in their place, as far as they fit; returns where they lie.

        Args:
            rendered: with its arrays.
            written: renderings written before.
        """
        place_bytes = len(self.rendered) // _PLACES
        offset = start = written % _PLACES * place_bytes
        moved: dict[str, Any] = {}
        for name in _ARRAYS:
            array: NDArray[Any] | None = getattr(rendered, name)
            if array is None or offset - start + array.nbytes > place_bytes:
                continue
            shared = SharedArray(offset, array.shape, array.dtype.str)
            np.copyto(self._at(shared), array)
            moved[name] = shared
            offset += -(-array.nbytes // 8) * 8
        return rendered._replace(**moved)  # undone by read_rendered

    def read_rendered(self, rendered: RenderedExit) -> RenderedExit:
        """A copy of the rendering with its arrays; its place may be written again."""
        moved: dict[str, Any] = {}
        for name in _ARRAYS:
            shared = getattr(rendered, name)
            if isinstance(shared, SharedArray):
                moved[name] = self._at(shared).copy()
        self.control.taken[0] += 1
        return rendered._replace(**moved)

    def _at(self, shared: SharedArray) -> NDArray[Any]:
        count = math.prod(shared.shape)
        flat = np.frombuffer(self.rendered, np.dtype(shared.dtype), count, shared.offset)
        return flat.reshape(shared.shape)


def _bytes_for(max_pixels: int) -> int:
    return _CONTROL_BYTES + (3 + _PLACES * _RENDERED_BYTES) * max_pixels


def _attach(descriptor: Any, max_pixels: int) -> SharedMemory:
    return SharedMemory(descriptor.detach(), max_pixels)
