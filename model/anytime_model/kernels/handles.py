"""Handles of the native kernels: a model's weights, a plan for one size, a run, a cache.

Each owns its memory in the library and frees it when it is collected, in any order. Callers check
the shapes of arrays.
"""

import weakref
from collections.abc import Sequence
from ctypes import c_int32
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_model.kernels.library import (
    Bytes,
    Floats,
    Library,
    Measure,
    Op,
    Slot,
    array_of,
    floats,
    octets,
)


class ArrayPool:
    """Memory for arrays of one shape, used again once nobody holds the array or a view of it.

    Fresh memory for a map costs more (the system must zero its pages) than copying the map.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[Floats] = []

    def take(self) -> Floats:
        """An array that is the caller's until it lets go of it; its values are arbitrary."""
        block = self._free.pop() if self._free else np.empty(self._shape, np.float32)
        lease = _Lease(block)
        weakref.finalize(lease, self._give_back, block).atexit = False
        return np.asarray(lease)  # its base, and that of every view of it, is the lease

    def _give_back(self, block: Floats) -> None:
        if len(self._free) < _MOST_FREE:
            self._free.append(block)


class _Lease:
    """Lives as long as an array made from it, or any view of that."""

    def __init__(self, block: Floats) -> None:
        self.__array_interface__ = block.__array_interface__


_MOST_FREE = 8


class _Handle:
    def __init__(self, library: Library, kind: str, handle: Any) -> None:
        self.library = library
        self.handle = handle
        self._free = weakref.finalize(self, library.call, f"{kind}_free", handle)


class ModelHandle(_Handle):
    """Packed weights for one instruction set."""

    def __init__(self, library: Library, isa: str) -> None:
        super().__init__(library, "model", library.call("model_new", library.isa_index(isa)))

    def add_conv(
        self,
        weights: Floats,
        stride: int,
        *,
        before: int | None = None,
        dense: bool = False,
        whole: bool = False,
    ) -> int:
        """Pack a convolution (out, in, k, k) and return its index.

        Args:
            weights: of the convolution.
            stride: 1 or 2.
            before: rows and columns of a window above and left of the pixel that it belongs to;
                half the kernel by default.
            dense: it is only done at every position, in the first stage, together with what
                follows it.
            whole: of an instruction set for bytes, it takes floats and puts out floats.
        """
        values = np.ascontiguousarray(weights, np.float32)
        outputs, inputs, kernel, _ = values.shape
        before = kernel // 2 if before is None else before
        index = self.library.call(
            "model_conv",
            *(self.handle, floats(values), outputs, inputs, kernel, stride, before, dense, whole),
        )
        return int(index)

    def add_depthwise(self, weights: Floats, stride: int) -> int:
        """Pack a depthwise convolution (channels, 1, k, k) and return its index.

        Its windows begin (k - stride) / 2 rows and columns before the pixel that they belong to.
        """
        values = np.ascontiguousarray(weights, np.float32)
        channels, _, kernel, _ = values.shape
        index = self.library.call(
            "model_depthwise", self.handle, floats(values), channels, kernel, stride
        )
        return int(index)

    def add_norm(
        self, bias: Floats, shift: Floats, window: Floats | None, scale: Floats | None = None
    ) -> int:
        """Add what follows a convolution's sum, and return its index."""
        index = self.library.call(
            "model_norm",
            *(self.handle, floats(scale), floats(bias), floats(shift), floats(window), len(bias)),
        )
        return int(index)


class PlanHandle(_Handle):
    """A program with its buffers, for padded images of one size.

    Raises:
        OutOfMemoryError: there is not enough memory.
        KernelError: the program does not fit its buffers.
    """

    def __init__(
        self,
        model: ModelHandle,
        size: tuple[int, int],
        slots: Sequence[Slot],
        ops: Sequence[Op],
        ends: Sequence[int],
        *,
        heads: Sequence[int] = (),
    ) -> None:
        library = model.library
        if heads and len(heads) != len(ends):
            raise ValueError(f"{len(heads)} exits begin and {len(ends)} stages end")
        handle = library.call(
            "plan_new",
            *(model.handle, *size),
            *(array_of(Slot, slots), len(slots), array_of(Op, ops), len(ops)),
            (c_int32 * len(heads))(*heads) if heads else None,
            *((c_int32 * len(ends))(*ends), len(ends)),
        )
        super().__init__(library, "plan", handle)
        map_ = slots[1]
        self.size = size
        self.map_shape = (size[0] >> map_.level, size[1] >> map_.level, map_.channels)
        self.maps = ArrayPool(self.map_shape)
        self.scratch_bytes = int(library.call("plan_bytes", handle))
        self.run_bytes = int(library.call("plan_run_bytes", handle))


class CacheHandle(_Handle):
    """The features of a video's last frame, for runs of plans as this one.

    Raises:
        OutOfMemoryError: there is not enough memory.
        KernelError: the plan's program holds nothing.
    """

    def __init__(self, plan: PlanHandle) -> None:
        super().__init__(plan.library, "cache", plan.library.call("cache_new", plan.handle))
        self.bytes = int(plan.library.call("cache_bytes", self.handle))


class RunHandle(_Handle):
    """One image on its way. Runs of a plan share its scratch: one of them advances at a time."""

    def __init__(self, plan: PlanHandle) -> None:
        super().__init__(plan.library, "run", plan.library.call("run_new", plan.handle))
        self._size = plan.size
        self._shape = plan.map_shape
        self._maps = plan.maps

    def start_bytes(self, image: Bytes, scale: Floats, offset: Floats) -> None:
        """Start over with (H, W, 3) bytes; value = byte * scale + offset for each channel."""
        height, width, _ = image.shape
        self.library.call(
            "run_bytes", self.handle, octets(image), height, width, floats(scale), floats(offset)
        )

    def start_floats(self, image: Floats) -> None:
        """Start over with (3, H, W) normalised values."""
        _, height, width = image.shape
        self.library.call("run_floats", self.handle, floats(image), height, width)

    def advance(self, slice_us: int, exit_: int = 0) -> bool:
        """Go on to an exit for about so many microseconds (0: until its map is made).

        Args:
            slice_us: see above.
            exit_: its number, the same until it is made; 0 for the next one. Of a later one, the
                stages before it are done without their exits.

        Returns:
            Whether there is more to do until it is made.
        """
        return bool(self.library.call("run_advance", self.handle, exit_, slice_us))

    def settle(
        self, measure: Measure, *, least: float | None = None, most: float | None = None
    ) -> None:
        """Measure the map; if a bound is given, what lies outside it is settled."""
        decide = least is not None or most is not None
        self.library.call(
            "run_settle",
            *(self.handle, measure, decide),
            -np.inf if least is None else least,
            np.inf if most is None else most,
        )

    def mask(self, active: NDArray[np.bool_]) -> None:
        """Settle what is off in a mask (h, w) of the caller's."""
        if active.shape != self._shape[:2]:
            raise ValueError(f"the mask is {active.shape}, the map {self._shape[:2]}")
        self.library.call("run_mask", self.handle, octets(np.ascontiguousarray(active, np.bool_)))

    def apply_prior(self, map_: Floats, active: NDArray[np.bool_]) -> None:
        """Right after the first map: take over another one where a mask is off, and settle that.

        Args:
            map_: (h, w, K), contiguous.
            active: (h, w), where the map stays as it is.
        """
        if map_.shape != self._shape or active.shape != self._shape[:2]:
            raise ValueError(f"the prior is {map_.shape}, {active.shape}, the map {self._shape}")
        mask = np.ascontiguousarray(active, np.bool_)
        self.library.call("run_prior", self.handle, floats(map_), octets(mask))

    def use_cache(self, cache: CacheHandle | None, fresh: NDArray[np.bool_] | None = None) -> None:
        """Right after the image: work in a cache, from now on this run's; None lets go of it.

        Args:
            cache: of a plan like this run's.
            fresh: (h, w) where its features are to be made anew; None for everywhere.
        """
        if fresh is not None and fresh.shape != self._shape[:2]:
            raise ValueError(f"what is fresh is {fresh.shape}, the map {self._shape[:2]}")
        mask = None if fresh is None else np.ascontiguousarray(fresh, np.bool_)
        handle = None if cache is None else cache.handle
        self.library.call("run_hold", self.handle, handle, octets(mask))

    def read_map(self) -> Floats:
        """A copy of the map, (h, w, K)."""
        map_ = self._maps.take()
        self.library.call("run_read", self.handle, floats(map_), None, None)
        return map_

    def read_settled(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Copies of the map's confidence (h, w) and of the mask (h, w)."""
        confidence = np.empty(self._shape[:2], np.float32)
        active = np.empty(self._shape[:2], np.bool_)
        self.library.call("run_read", self.handle, None, floats(confidence), octets(active))
        return confidence, active

    def read_slot(self, slot: int, level: int, channels: int) -> Floats:
        """A copy of a buffer of the run, (h, w, channels): features, 0 where they are not needed.

        Raises:
            KernelError: there is no map yet, or the buffer is not the run's or holds bytes.
        """
        height, width = self._size
        values = np.empty((height >> level, width >> level, channels), np.float32)
        self.library.call("run_read_slot", self.handle, slot, floats(values))
        return values

    def operation(self) -> int:
        """Index of the operation that the run goes on with, for profiles."""
        return int(self.library.call("run_operation", self.handle))

    def macs(self) -> int:
        """Multiply-adds executed since the image came."""
        return int(self.library.call("run_macs", self.handle))


def resized(library: Library, isa: str, image: Bytes, size: tuple[int, int]) -> Bytes:
    """An image at another size: Pillow's bilinear filter along rows and then columns, bit for bit.

    Args:
        library: the kernels.
        isa: an instruction set of the library's.
        image: contiguous (H, W, 3).
        size: (H, W) px of the result.

    Raises:
        KernelError: a side is smaller than what one pixel of the result is made from.
    """
    out = np.empty((*size, 3), np.uint8)
    height, width = image.shape[:2]
    library.call("resize", library.isa_index(isa), octets(image), height, width, *size, octets(out))
    return out


def decode_labels(
    library: Library, isa: str, map_: Floats, image_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Class of every pixel: the map upsampled by 4, then the index of the largest value.

    Args:
        library: the kernels.
        isa: an instruction set of the library's.
        map_: (K, h, w) float32, in any order in memory.
        image_size: (H, W), at most 4 times the map's.

    Raises:
        KernelError: the sizes do not fit.
    """
    labels = np.empty(image_size, np.uint8)
    channels, height, width = map_.shape
    channel, row, column = (stride // map_.itemsize for stride in map_.strides)
    library.call(
        *("decode", library.isa_index(isa), floats(map_)),
        *(height, width, channels, row, column, channel, *image_size, octets(labels)),
    )
    return labels
