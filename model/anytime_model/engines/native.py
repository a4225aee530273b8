"""The native engine: the network as a flat program of C++ kernels that skip what is settled.

It lowers a checkpoint once, makes a plan of buffers for each image size that comes along, and keeps
the plans used last within a bound of memory. A run holds what must survive between stages, so that
several images may be under way, stage by stage; only one of them advances at a time. Within a
stage the kernels are called for about two milliseconds at a time, with a `pause` in between.

The results agree with the torch engine's within rounding; the masks are the same unless a
confidence lies within rounding of the threshold.
"""

import weakref
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_model.anytime import STRIDE
from anytime_model.checkpoint import Checkpoint
from anytime_model.confidence import (
    Criterion,
    Entropy,
    HeatmapMaximum,
    MaximumProbability,
)
from anytime_model.config import NUM_EXITS
from anytime_model.engines.base import (
    Decoded,
    ExitResult,
    Keypoints,
    Pause,
    SegmentationMap,
    check_image,
)
from anytime_model.engines.native_lowering import lower
from anytime_model.engines.native_memory import Plan, Plans
from anytime_model.errors import FinishedError, ImageError
from anytime_model.kernels.handles import RunHandle, decode_labels
from anytime_model.kernels.library import KernelError, Measure, load
from anytime_model.tasks import decode_keypoints

Dtype = Literal["f32", "bf16"]

SLICE_US = 500
"""How long the kernels run between two calls of `pause`, microseconds; one may add 2 ms.

At 480x360 all exits took as long with 500 as with 2000 (1.014 and 1.015 of the time without a
pause, 40 images in turn), and the longest time between two calls fell from 4.9 to 2.3 ms."""

MEMORY_BYTES = 2 << 30


class NativeEngine:
    """Runs a checkpoint with the native kernels.

    Args:
        checkpoint: network and card.
        dtype: "f32", or "bf16" for CPUs with AVX-512 BF16: weights and activations in bfloat16,
            sums and maps in float32.
        isa: an instruction set by name, such as "avx2"; None is the fastest of this CPU.
        memory_bytes: bound on the buffers of all image sizes together.

    Raises:
        KernelError: the kernels are not built, or the CPU cannot run what was asked for.
    """

    sparse = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: Dtype = "f32",
        isa: str | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.card = checkpoint.card
        self.library = load()
        self.isa = isa or _fastest(self.library.isas, dtype)
        pairs = self.isa.endswith(_BF16)
        program = lower(checkpoint.network, image_channels=4 if pairs else 3)
        self._plans = Plans(self.library, self.isa, program, memory_bytes)
        mean, std = np.array(self.card.mean), np.array(self.card.std)
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (-mean / std).astype(np.float32)

    @property
    def name(self) -> str:
        """What computes."""
        return f"native-{self.isa}" if self.isa.endswith(_BF16) else f"native-{self.isa}-f32"

    @property
    def memory_bytes(self) -> int:
        """Bytes of all buffers held now, for all sizes."""
        return self._plans.bytes

    def begin(self, image: NDArray[np.uint8]) -> "NativeRun":
        """See `Engine.begin`."""
        check_image(image)
        pixels = np.ascontiguousarray(image)

        def put(handle: RunHandle) -> None:
            handle.start_bytes(pixels, self._scale, self._offset)

        return self._begin((image.shape[0], image.shape[1]), put)

    def begin_normalised(self, image: NDArray[np.float32]) -> "NativeRun":
        """Accept an image that is normalised already.

        Args:
            image: (3, H, W) float32, finite.

        Raises:
            ImageError: another shape or type, or a value that is not finite.
        """
        if image.ndim != 3 or image.shape[0] != 3 or image.size == 0 or image.dtype != np.float32:
            raise ImageError(
                f"the image is {image.dtype} of shape {image.shape}; expected float32 of shape "
                "(3, H, W), H and W at least 1."
            )
        if not np.isfinite(image).all():
            raise ImageError(
                "the image has values that are NaN or infinite; expected finite ones. "
                "Check its normalisation."
            )
        values = np.ascontiguousarray(image)
        return self._begin(
            (image.shape[1], image.shape[2]), lambda handle: handle.start_floats(values)
        )

    def _begin(self, size: tuple[int, int], put: Callable[[RunHandle], None]) -> "NativeRun":
        height, width = size
        plan, handle = self._plans.take_run(height + -height % STRIDE, width + -width % STRIDE)
        put(handle)
        return NativeRun(self, plan, handle, size)

    def decode(self, result: ExitResult) -> Decoded:
        """See `Engine.decode`."""
        if self.card.config.task == "pose":
            heatmaps = torch.from_numpy(np.ascontiguousarray(result.logits)).unsqueeze(0)
            return Keypoints(decode_keypoints(heatmaps, result.image_size)[0].numpy())
        map_ = np.ascontiguousarray(result.logits.transpose(1, 2, 0))
        return SegmentationMap(decode_labels(self.library, self.isa, map_, result.image_size))


class NativeRun:
    """One image on its way through a native engine."""

    def __init__(
        self,
        engine: NativeEngine,
        plan: Plan,
        handle: RunHandle,
        image_size: tuple[int, int],
    ) -> None:
        self._engine = engine
        self._handle: RunHandle | None = handle
        self._give_back = weakref.finalize(self, plan.give_back, handle)
        self._plan = plan
        self._image_size = image_size
        self._exit = 0

    @property
    def exit(self) -> int:
        """Exits made so far."""
        return self._exit

    def advance(self, criterion: Criterion | None = None, pause: Pause | None = None) -> ExitResult:
        """See `Run.advance`."""
        handle = self._handle
        if handle is None:
            raise FinishedError(
                f"this run is over after exit {self._exit}; begin again with another image."
            )
        before = handle.macs()
        try:
            if pause is None:
                handle.advance(0)
            else:
                while handle.advance(SLICE_US):
                    pause()
            logits = handle.read_map().transpose(2, 0, 1)
            self._settle(handle, logits, criterion)
            confidence, active = handle.read_settled()
        except BaseException:
            self._end()
            raise
        self._exit += 1
        result = ExitResult(
            exit=self._exit,
            image_size=self._image_size,
            logits=logits,
            confidence=confidence,
            active=active,
            macs=handle.macs() - before,
        )
        if self._exit == NUM_EXITS:
            self._end()
        return result

    def _settle(
        self, handle: RunHandle, logits: NDArray[np.float32], criterion: Criterion | None
    ) -> None:
        pose = self._engine.card.config.task == "pose"
        match criterion:
            case MaximumProbability(threshold) if not pose:
                handle.settle(Measure.PROBABILITY, most=threshold)
            case Entropy(threshold) if not pose:
                handle.settle(Measure.ENTROPY, least=threshold)
            case HeatmapMaximum(threshold) if pose:
                handle.settle(Measure.MAXIMUM, least=threshold)
            case _:
                handle.settle(Measure.MAXIMUM if pose else Measure.PROBABILITY)
                if criterion is not None:
                    active = criterion(torch.from_numpy(logits).unsqueeze(0))
                    handle.mask(active[0, 0].numpy())

    def _end(self) -> None:
        self._handle = None
        self._give_back()


_BF16 = "bf16"


def _fastest(isas: tuple[str, ...], dtype: Dtype) -> str:
    fitting = [isa for isa in isas if isa.endswith(_BF16) == (dtype == _BF16)]
    if not fitting:
        raise KernelError(
            f"no instruction set of this CPU computes in {dtype} natively; it has "
            f"{', '.join(isas)}. Use f32."
        )
    return fitting[0]
