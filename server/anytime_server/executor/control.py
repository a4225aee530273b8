"""The memory that the server and its executor's process share: words, exits, images, pictures.

Decides where arrays lie, so that what goes through the pipe stays small: a pipe takes 200 kB at a
time, and each further piece costs two switches between the processes. There is one place for an
image and one for a picture, since only one command is under way at a time; whoever reads copies at
once. What does not fit goes through the pipe as it is.

Exits that nobody waits for are noted here and not in the pipe, as a word in the pipe wakes the
server, which has to take the time for it from a core that computes.

The memory is an unlinked file, which ends with the two processes, however they end.
"""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anytime_server.core.jobs import StageResult
from anytime_server.executor.base import Image, Picture, StageDone

_ARRAYS: Final = ("labels", "confidence", "active", "heatmaps")

_SHOWN_BYTES: Final = 4
"""Of a picture, for each px of the largest image: three maps and the heat-maps of 8 joints."""


MOST_EXITS: Final = 16
"""That are noted of one run."""

_NUMBERS: Final = 5
"""Of an exit."""


class Place(NamedTuple):
    """An array that lies in shared memory.

    Attributes:
        offset: bytes from the start.
        shape: of the array.
        dtype: of the array, as numpy names it.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Shared:
    """See the module; made by `allocate`, and handed to the process when it is started.

    Attributes:
        stop_word: its one element is the number of the run that is to stop.
        hold_word: its one element is the number of the run after which the process shall wait.
        exits: how many exits the run has noted, and the numbers of each.
        image: bytes of an image.
        picture: bytes of a picture's arrays.
    """

    stop_word: Any  # the shared arrays of multiprocessing have no public type
    hold_word: Any
    exits: Any
    image: Any
    picture: Any

    @classmethod
    def allocate(cls, max_pixels: int) -> Shared:
        """Memory for images of up to `max_pixels`."""
        context = multiprocessing.get_context("spawn")
        return cls(
            context.RawArray("q", 1),
            context.RawArray("q", 1),
            context.RawArray("d", 1 + _NUMBERS * MOST_EXITS),
            context.RawArray("B", 3 * max_pixels),
            context.RawArray("B", _SHOWN_BYTES * max_pixels),
        )

    def clear_exits(self) -> None:
        """Forgets the exits of the last run."""
        self.exits[0] = 0

    def write_exit(self, done: StageDone) -> None:
        """Notes an exit behind those of this run; its picture is not noted."""
        count, result = int(self.exits[0]), done.result
        start = 1 + _NUMBERS * count
        self.exits[start : start + _NUMBERS] = (
            result.confidence,
            result.active_share,
            result.confident_share,
            result.gmacs,
            done.elapsed_s,
        )
        # Last, as it says that the numbers are there. No barrier stands between: x86 keeps stores
        # in order, and elsewhere a store waits for less than the interpreter takes to the next.
        self.exits[0] = count + 1

    def read_exits(self, known: int) -> tuple[StageDone, ...]:
        """The exits of this run after the first `known`."""
        found = []
        for index in range(known, int(self.exits[0])):
            start = 1 + _NUMBERS * index
            *result, elapsed_s = self.exits[start : start + _NUMBERS]
            found.append(StageDone(StageResult(*result), elapsed_s))
        return tuple(found)

    def write_image(self, image: Image) -> tuple[int, int, int]:
        """Puts an image in its place; returns its shape.

        Raises:
            ValueError: it is too large.
        """
        height, width, channels = image.shape
        if image.size > len(self.image):
            raise ValueError(f"the image has {image.size} bytes, at most {len(self.image)} fit")
        view = np.frombuffer(self.image, np.uint8, image.size)
        np.copyto(view.reshape(image.shape), image)
        return height, width, channels

    def read_image(self, shape: tuple[int, int, int]) -> Image:
        """A copy of the image in its place."""
        size = shape[0] * shape[1] * shape[2]
        return np.frombuffer(self.image, np.uint8, size).reshape(shape).copy()

    def write_picture(self, picture: Picture) -> Picture:
        """Puts a picture's arrays in their place, as far as they fit; returns where they lie."""
        moved: dict[str, Any] = {}
        offset = 0
        for name in _ARRAYS:
            array: NDArray[Any] | None = getattr(picture, name)
            if array is None or offset + array.nbytes > len(self.picture):
                continue
            place = Place(offset, array.shape, array.dtype.str)
            np.copyto(self._at(place), array)
            moved[name] = place
            offset += -(-array.nbytes // 8) * 8
        return picture._replace(**moved)  # undone by read_picture

    def read_picture(self, picture: Picture) -> Picture:
        """A copy of the picture with its arrays."""
        moved: dict[str, Any] = {}
        for name in _ARRAYS:
            place = getattr(picture, name)
            if isinstance(place, Place):
                moved[name] = self._at(place).copy()
        return picture._replace(**moved)

    def _at(self, place: Place) -> NDArray[Any]:
        count = math.prod(place.shape)
        flat = np.frombuffer(self.picture, np.dtype(place.dtype), count, place.offset)
        return flat.reshape(place.shape)
