"""The native engine: runs the network with C++ kernels that skip settled positions.

It lowers a checkpoint once, makes a plan of buffers for each image size, and keeps the plans used
last within a budget of memory. A run holds what must survive between stages, so that several images
may be under way, stage by stage; only one of them advances at a time. Within a stage the kernels
are called for about half a millisecond at a time, with a `pause` in between.

The results agree with the torch engine's within rounding; the masks are the same unless a
confidence lies within rounding of the threshold.
"""

import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_model.checkpoint.store import Checkpoint
from anytime_model.confidence import (
    Criterion,
    Entropy,
    FeatureCriterion,
    HeatmapMaximum,
    MaximumProbability,
    unsettled,
)
from anytime_model.engines.base import (
    Dtype,
    Pause,
    check_image,
    check_normalised,
    is_reduced,
    resized_image,
)
from anytime_model.engines.native.held import held_program
from anytime_model.engines.native.lowering import lower
from anytime_model.engines.native.memory import (
    MemoryBudget,
    NativeFeatureCache,
    Plan,
    PlanMaker,
    process_budget,
)
from anytime_model.engines.native.program import ByteSteps, Program
from anytime_model.engines.native.quantisation import quantise
from anytime_model.engines.native.ranges import program_to_quantise
from anytime_model.errors import ConfigError, FinishedError
from anytime_model.kernels.handles import RunHandle, decode_labels, resized
from anytime_model.kernels.library import KernelError, Measure, dtype_of, load
from anytime_model.networks.base import Prior, next_exit, padded_size
from anytime_model.results import Decoded, ExitResult

SLICE_US = 500
"""How long the kernels run between two calls of `pause`, microseconds; one kernel may exceed it."""

_LEAST_RESIZED = 9
"""Px of an image's shorter side that the kernels resize: as many as one pixel is made from."""


class NativeEngine:
    """Runs a checkpoint with the native kernels.

    Args:
        checkpoint: network and card.
        dtype: "f32"; "bf16" for CPUs with AVX-512 BF16: weights and activations in bfloat16, sums
            and maps in float32; or "int8": weights and activations in bytes (`quantisation`), maps
            in float32, for checkpoints whose card has ranges for it.
        isa: an instruction set by name, such as "avx2", which also says the dtype; None is the
            fastest of this CPU.
        memory: bound on the buffers, shared with other engines; the process's own by default.

    Raises:
        KernelError: the kernels are not built, or the CPU or they cannot run what was asked for.
        ConfigError: int8 was asked for, and the card has no ranges.

    Attributes:
        scale: what the kernels multiply the bytes of an image's three channels by.
        offset: what they add.
        features: buffers that the exit of each stage reads, see `Program`.
    """

    sparse = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: Dtype = "f32",
        isa: str | None = None,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.card = checkpoint.card
        self.library = load()
        self.isa = isa or _fastest(self.library.isas, dtype)
        self.dtype: Dtype = dtype_of(self.isa)
        program = program_of(checkpoint, self.dtype)
        self.features = program.features
        self._plans = PlanMaker(self.library, self.isa, program)
        self._memory = memory or process_budget()
        self._memory.enter(self._plans)
        self._video_plans: PlanMaker | None = None
        held = held_program(program)
        if held is not None:
            self._video_plans = PlanMaker(self.library, self.isa, held, self._plans.model)
            self._memory.enter(self._video_plans)
        mean, std = np.array(self.card.mean), np.array(self.card.std)
        steps = program.image_steps or ByteSteps(1.0, 0)
        self._steps = steps
        self.scale = (1 / (255 * std) / steps.step).astype(np.float32)
        self.offset = (-mean / std / steps.step + steps.zero).astype(np.float32)

    @property
    def name(self) -> str:
        """What computes."""
        return f"native-{self.isa}" if self.isa.endswith(self.dtype) else f"native-{self.isa}-f32"

    def begin(self, image: NDArray[np.uint8], prior: Prior | None = None) -> "NativeRun":
        """See `Engine.begin`."""
        return self._begin_bytes(image, prior, None, None)

    def new_cache(self, size: tuple[int, int]) -> NativeFeatureCache | None:
        """See `HoldingEngine.new_cache`."""
        if self._video_plans is None:
            return None
        padded = padded_size(size, self.card.config.stride)
        return self._memory.take_cache(self._video_plans, padded)

    def begin_held(
        self,
        image: NDArray[np.uint8],
        prior: Prior | None,
        cache: NativeFeatureCache,
        fresh: NDArray[np.bool_] | None,
    ) -> "NativeRun":
        """See `HoldingEngine.begin_held`."""
        return self._begin_bytes(image, prior, cache, fresh)

    def _begin_bytes(
        self,
        image: NDArray[np.uint8],
        prior: Prior | None,
        cache: NativeFeatureCache | None,
        fresh: NDArray[np.bool_] | None,
    ) -> "NativeRun":
        check_image(image)
        pixels = np.ascontiguousarray(image)
        held = None if cache is None else cache.handle  # it may be taken back for this very run

        def put(handle: RunHandle) -> None:
            handle.start_bytes(pixels, self.scale, self.offset)
            if held is not None:
                handle.use_cache(held, fresh)

        plans = self._plans if held is None else self._video_plans
        return self._begin((image.shape[0], image.shape[1]), put, prior, plans)

    def begin_normalised(
        self, image: NDArray[np.float32], prior: Prior | None = None
    ) -> "NativeRun":
        """See `NetworkEngine.begin_normalised`."""
        check_normalised(image)
        values = np.ascontiguousarray(image / self._steps.step + self._steps.zero, np.float32)
        return self._begin(
            (image.shape[1], image.shape[2]), lambda handle: handle.start_floats(values), prior
        )

    def _begin(
        self,
        size: tuple[int, int],
        put: Callable[[RunHandle], None],
        prior: Prior | None,
        plans: PlanMaker | None = None,
    ) -> "NativeRun":
        config = self.card.config
        height, width = padded_size(size, config.stride)
        if prior is not None:
            cells = (height // config.map_stride, width // config.map_stride)
            prior.check(1, config.outputs, cells)
        plan, handle = self._memory.take_run(plans or self._plans, (height, width))
        run = NativeRun(self, plan, handle, size, prior)
        put(handle)
        return run

    def prepare(self, size: tuple[int, int]) -> None:
        """See `Engine.prepare`: makes the plan and the buffers of one run."""
        plan, handle = self._memory.take_run(
            self._plans, padded_size(size, self.card.config.stride)
        )
        plan.give_back(handle)

    def resized(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """See `Engine.resized`."""
        before = image.shape[:2]
        if size == before or min(before) < _LEAST_RESIZED or is_reduced(image, size):
            return resized_image(image, size)
        return resized(self.library, self.isa, np.ascontiguousarray(image), size)

    def decode(self, result: ExitResult) -> Decoded:
        """See `Engine.decode`."""
        return self.card.task.decode(result, self._decode_classes)

    def _decode_classes(self, result: ExitResult) -> NDArray[np.uint8]:
        return decode_labels(self.library, self.isa, result.logits, result.image_size)


class NativeRun:
    """One image on its way through a native engine."""

    def __init__(
        self,
        engine: NativeEngine,
        plan: Plan,
        handle: RunHandle,
        image_size: tuple[int, int],
        prior: Prior | None,
    ) -> None:
        self._engine = engine
        self._handle: RunHandle | None = handle
        self._give_back = weakref.finalize(self, plan.give_back, handle)
        self._plan = plan
        self._image_size = image_size
        self._prior = prior
        self._exit = 0

    @property
    def exit(self) -> int:
        """Exits made so far."""
        return self._exit

    def advance(
        self,
        criterion: Criterion | None = None,
        pause: Pause | None = None,
        *,
        exit_: int | None = None,
    ) -> ExitResult:
        """See `Run.advance`."""
        handle = self._handle
        if handle is None:
            raise FinishedError(
                f"this run is over after exit {self._exit}; begin again with another image."
            )
        config = self._engine.card.config
        wanted = next_exit(exit_, self._exit, config)
        before = handle.macs()
        try:
            if pause is None:
                handle.advance(0, wanted)
            else:
                while handle.advance(SLICE_US, wanted):
                    pause()
            if self._prior is not None:
                _apply(self._prior, handle)
                self._prior = None
            logits = handle.read_map().transpose(2, 0, 1)
            self._settle(handle, logits, wanted, criterion)
            confidence, active = handle.read_settled()
        except BaseException:
            self._end()
            raise
        self._exit = wanted
        result = ExitResult(
            exit=self._exit,
            image_size=self._image_size,
            logits=logits,
            confidence=confidence,
            active=active,
            macs=handle.macs() - before,
            map_stride=config.map_stride,
        )
        if self._exit == config.num_exits:
            self._end()
        return result

    def _settle(
        self,
        handle: RunHandle,
        logits: NDArray[np.float32],
        exit_: int,
        criterion: Criterion | None,
    ) -> None:
        probabilistic = self._engine.card.task.probabilistic
        match criterion:
            case MaximumProbability(threshold) if probabilistic:
                handle.settle(Measure.PROBABILITY, most=threshold)
            case Entropy(threshold) if probabilistic:
                handle.settle(Measure.ENTROPY, least=threshold)
            case HeatmapMaximum(threshold) if not probabilistic:
                handle.settle(Measure.MAXIMUM, least=threshold)
            case _:
                handle.settle(Measure.PROBABILITY if probabilistic else Measure.MAXIMUM)
                if criterion is not None:
                    features = (
                        self._features(handle, exit_)
                        if isinstance(criterion, FeatureCriterion)
                        else ()
                    )
                    active = unsettled(criterion, torch.from_numpy(logits).unsqueeze(0), features)
                    handle.mask(active[0, 0].numpy())

    def _features(self, handle: RunHandle, exit_: int) -> tuple[torch.Tensor, ...]:
        """What an exit reads, (1, C, h, w), finest first; 0 where no active position needs it."""
        if not self._engine.features:
            raise ConfigError(
                f"{self._engine.name} shows no features of {self._engine.card.name}; expected a "
                "criterion of maps, or an HRNet in f32 or bf16."
            )
        arrays = (
            handle.read_slot(b.slot, b.level, b.channels) for b in self._engine.features[exit_ - 1]
        )
        return tuple(torch.from_numpy(a.transpose(2, 0, 1)).unsqueeze(0) for a in arrays)

    def _end(self) -> None:
        self._handle = None
        self._give_back()


def program_of(checkpoint: Checkpoint, dtype: Dtype) -> Program:
    """The program that the native kernels run for a checkpoint.

    Raises:
        KernelError: they have none for its family, or none in this precision.
        ConfigError: int8 was asked for, and the card has no ranges, or those of other weights.
    """
    if dtype != "int8":
        return lower(checkpoint.network, image_channels=4 if dtype == "bf16" else 3)
    card = checkpoint.card
    if card.int8 is None:
        raise ConfigError(
            f"{card.name} has no ranges for int8; expected `int8` on its card. Measure them with "
            "`anytime-model quantise`, or use f32."
        )
    program = program_to_quantise(checkpoint.network, card.int8.floats)
    return quantise(program, card.int8.ranges, card.int8.floats)


@cache
def dtypes_by_speed() -> tuple[Dtype, ...]:
    """What this CPU can multiply, the fastest first, as measured; f32 where there are no kernels.

    CPUs with instructions for bf16 do with them between half and twice as many products a second as
    with those for floats; with those for bytes, four times as many; with tiles (AMX), tens of times
    as many.
    """
    try:
        library = load()
    except KernelError:
        return ("f32",)
    peaks: dict[Dtype, float] = {}
    for dtype in get_args(Dtype):
        with suppress(KernelError):  # the CPU has no instructions for it
            isa = _fastest(library.isas, dtype)
            peaks[dtype] = max(library.peak_macs_per_s(isa) for _ in range(_PEAKS))
    return tuple(sorted(peaks, key=lambda dtype: -peaks[dtype]))


def _apply(prior: Prior, handle: RunHandle) -> None:
    """Put a prior in place of what exit 1 has made of settled positions."""
    map_ = prior.logits[0].permute(1, 2, 0).float().contiguous().cpu().numpy()
    handle.apply_prior(map_, prior.active[0, 0].cpu().numpy())


_PEAKS = 3
"""Measurements of a peak of which the highest counts."""


def _fastest(isas: tuple[str, ...], dtype: Dtype) -> str:
    fitting = [isa for isa in isas if dtype_of(isa) == dtype]
    if not fitting:
        raise KernelError(
            f"no instruction set of this CPU computes in {dtype} natively; it has "
            f"{', '.join(isas)}. Use f32."
        )
    return fitting[0]
