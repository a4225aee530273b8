"""What a stage will cost: profiled base times, and one slow-down factor for the whole machine.

Predicts how long (seconds, with a standard deviation) and how expensive (1e9 multiply-adds) a
stage, a decode or an encode will be. It learns in place: `observe_*` change the model they are
called on.

A stage's base time is `fixed_s + active_s * share`, where `share` is the part of the pixels that
the exit before it left active; both come from a profile taken at start-up. A *step* leads from one
exit to the next that is made: the stages between, those before its end without their exits, where
exits may be left out (`core.stage_costs`). Whatever slows the machine down (another process, heat,
a lower clock) slows all stages alike, so that one factor learnt from any stage serves all of them,
the next one included (ALERT: Wan et al., ATC 2020, section 3.4). The factor is a random walk seen
through noise, hence a Kalman filter; as in ALERT the process noise grows with the corrections that
were needed, so that a jump is followed fast. Unlike ALERT, the measurement noise is learnt too: it
is the larger part of a prediction's error, and the safety margin of every deadline is made of it.

A stage's profile may be wrong by itself, since active pixels that lie together cost less than as
many that are scattered. So each stage has a bias beside the factor, learnt slowly from what the
factor does not explain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from anytime_server.core.slow_down import Prediction, SlowDown
from anytime_server.core.stage_costs import Biases, StageCost, StepCosts
from anytime_server.core.stream_costs import StreamCosts
from anytime_server.errors import ProfileError, UnknownModelError

if TYPE_CHECKING:  # it only reads them
    from anytime_server.core.jobs import JobState

_TOO_SHORT_S: Final = 1e-5
"""Base time below which a stage says nothing about the machine."""

_REMEMBERED_SIZES: Final = 1024
"""Image sizes whose scaled profiles are kept; clients choose sizes, so there must be an end."""

_READY_SIZES: Final = 16
"""Sizes that are computed and that an executor is taken to be ready for, those that came last."""

_Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SizeProfile:
    """The stage costs measured at one input size (px, before padding)."""

    height: int
    width: int
    stages: tuple[StageCost, ...]


class MeasuredPath(NamedTuple):
    """A way through a model's exits, and how good its maps are.

    Attributes:
        exits: their numbers, rising from 1.
        quality: after each of them, in the unit of `ModelProfile.quality`.
    """

    exits: tuple[int, ...]
    quality: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """The measured costs and quality of a model.

    An image is computed at each side of the ladder in turn, through all exits of the network at
    each; exits are counted through. Without a ladder it is computed once, as large as it is.

    Attributes:
        model: its name.
        sizes: at least one profiled size, all with the same number of stages, the network's.
        quality: measured quality per exit (mIoU, PCKh), any unit, or empty where none was measured;
            then the doubt left after an exit (1 - confidence) stands for what is still to gain.
        typical_share: active share that each stage typically starts with, whichever exit was made
            before; 1 where unknown. Only plans that look further than the next exit use it, and it
            is learnt on the way.
        sides: the ladder: lengths that the longer side of every image is brought to, px, rising;
            empty where images are computed at the size at which they come.
        paths: ways through the exits whose quality was measured; where there are none, all exits in
            order.
        stride: the network pads both sides to a multiple of this many px.
        reaction_s: longest time between two checks whether a stage is to stop, at the largest size.
        prepare_s_per_px: seconds that getting ready for a new size takes, for each px that is
            computed.
    """

    model: str
    sizes: tuple[SizeProfile, ...]
    quality: tuple[float, ...] = ()
    typical_share: tuple[float, ...] = ()
    sides: tuple[int, ...] = ()
    paths: tuple[MeasuredPath, ...] = ()
    stride: int = 32
    reaction_s: float = 0.0
    prepare_s_per_px: float = 0.0

    def computed_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Heights and widths that an image of so many px is computed at, padding included, px."""
        return _computed_sizes(self.sides, self.stride, height, width)

    def stages(self, sizes: Iterable[tuple[int, int]]) -> tuple[StageCost, ...]:
        """Base costs of the stages to all exits, at the sizes of `computed_sizes`.

        A size that was not profiled lies between two that were, by the logarithm of its pixels: its
        costs are a mean of theirs, each scaled by pixels. Beyond all of them, those of the nearest
        one are scaled.
        """
        return tuple(stage for height, width in sizes for stage in self._stages_at(height * width))

    def _stages_at(self, pixels: int) -> tuple[StageCost, ...]:
        measured = sorted((self.profiled_pixels(size), size.stages) for size in self.sizes)
        smaller = [item for item in measured if item[0] <= pixels][-1:] or measured[:1]
        larger = [item for item in measured if item[0] >= pixels][:1] or measured[-1:]
        (low, low_stages), (high, high_stages) = smaller[0], larger[0]
        share = math.log(pixels / low) / math.log(high / low) if low < pixels < high else 0.0
        return tuple(
            first.scaled(pixels / low).mixed(second.scaled(pixels / high), share)
            for first, second in zip(low_stages, high_stages, strict=True)
        )

    def profiled_pixels(self, size: SizeProfile) -> int:
        """Pixels that are computed at one of its profiled sizes, padding included."""
        return _padded(size.height, self.stride) * _padded(size.width, self.stride)

    @property
    def first_exits(self) -> range:
        """The first exit at each size."""
        return range(1, self.exits + 1, len(self.sizes[0].stages))

    def first_at_size(self, exit_: int) -> int:
        """The first exit at the size of an exit (from 1)."""
        return exit_ - (exit_ - 1) % len(self.sizes[0].stages)

    def size_of(self, exit_: int) -> int:
        """The index of the side, of the ladder's from the smallest, of an exit (from 1)."""
        return (exit_ - 1) // len(self.sizes[0].stages)

    @property
    def exits(self) -> int:
        """Number of exits, at all sides of the ladder; each has a stage that leads to it."""
        return max(len(self.sides), 1) * len(self.sizes[0].stages)

    @property
    def ways(self) -> tuple[MeasuredPath, ...]:
        """The ways through the exits: the measured ones, or all exits in order."""
        every = MeasuredPath(tuple(range(1, self.exits + 1)), self.quality)
        return self.paths or (every,)

    def __post_init__(self) -> None:
        if not self.sizes or not self.sizes[0].stages:
            raise ProfileError(self.model, "found no stage costs, expected at least one size")
        for name in ("quality", "typical_share"):
            values = getattr(self, name)
            if values and len(values) != self.exits:
                raise ProfileError(
                    self.model, f"{name} has {len(values)} values, expected {self.exits}"
                )
        for name in ("reaction_s", "prepare_s_per_px"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ProfileError(
                    self.model, f"found {name} {getattr(self, name)}, expected a finite number >= 0"
                )
        for path in self.paths:
            if path.exits[:1] != (1,) or len(path.quality) != len(path.exits):
                raise ProfileError(
                    self.model, f"found {path}, expected exits from 1 on and a quality for each"
                )
        for size in self.sizes:
            if len(size.stages) != len(self.sizes[0].stages) or min(size.height, size.width) < 1:
                raise ProfileError(
                    self.model,
                    f"size {size.height}x{size.width} has {len(size.stages)} stages, expected "
                    f"{len(self.sizes[0].stages)} and sides of at least 1 px",
                )
            for stage in size.stages:
                sound = all(math.isfinite(part) and part >= 0.0 for part in stage.parts)
                if not sound or not stage.seconds(1.0):
                    raise ProfileError(
                        self.model, f"found {stage}, expected finite parts >= 0 and some time"
                    )


@lru_cache(_REMEMBERED_SIZES)
def _computed_sizes(
    sides: tuple[int, ...], stride: int, height: int, width: int
) -> tuple[tuple[int, int], ...]:
    sizes = []
    for side in sides or (max(height, width),):
        factor = side / max(height, width)
        rows, columns = (_padded(max(1, round(n * factor)), stride) for n in (height, width))
        sizes.append((rows, columns))
    return tuple(sizes)


def _padded(side: int, stride: int) -> int:
    return -(-side // stride) * stride


@dataclass(frozen=True, slots=True)
class SideCost:
    """First guess of what turning bytes into pixels, or a map into bytes, takes.

    Attributes:
        fixed_s: seconds whatever the size.
        per_mpx_s: seconds for each million pixels.
    """

    fixed_s: float = 0.0005
    per_mpx_s: float = 0.010

    def seconds(self, pixels: int) -> float:
        """Base time for an image of so many pixels."""
        return self.fixed_s + self.per_mpx_s * pixels / 1e6


_RUN_S: Final = 0.002
"""Unit in which the time is learnt that a run takes beside the network."""


class CostModel:
    """Predicts times from profiles and learns from measured ones, in place.

    Args:
        profiles: one per model.
        decode: first guesses by media type (`image/jpeg`).
        encode: first guesses by the encoding of the answer (`png`).

    Media types and encodings without a first guess share one default each, so that no client can
    make the tables grow.

    Attributes:
        slow_down: the machine's factor.
        version: rises when observations have moved predictions by `_MOVED`; one holds until then.
        last_error: relative error of the last prediction of a stage that was observed.
    """

    def __init__(
        self,
        profiles: Iterable[ModelProfile],
        decode: dict[str, SideCost] | None = None,
        encode: dict[str, SideCost] | None = None,
    ) -> None:
        self._profiles = {profile.model: profile for profile in profiles}
        self._steps: dict[tuple[str, _Sizes], StepCosts] = {}
        self._ready: dict[tuple[str, tuple[int, int]], None] = {}
        self._shares = {
            name: list(profile.typical_share or (1.0,) * profile.exits)
            for name, profile in self._profiles.items()
        }
        self._biases = {name: Biases(profile.exits) for name, profile in self._profiles.items()}
        self.version = 0
        self.last_error = 0.0
        self.slow_down = SlowDown()
        self._decode = _SideCosts(decode or {})
        self._encode = _SideCosts(encode or {})
        self._overhead: SlowDown | None = None
        self._reactions: dict[tuple[str, int, int], float] = {}
        self._streams: dict[str, StreamCosts] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are profiled."""
        return tuple(self._profiles)

    def profile(self, model: str) -> ModelProfile:
        """The profile of a model.

        Raises:
            UnknownModelError: there is none.
        """
        try:
            return self._profiles[model]
        except KeyError:
            raise UnknownModelError(model, self._profiles) from None

    def steps(self, model: str, height: int, width: int) -> StepCosts:
        """What the steps between a model's exits take for an image of any size (px).

        Raises:
            UnknownModelError: no such model.
        """
        profile = self.profile(model)
        sizes = profile.computed_sizes(height, width)
        key = (model, sizes)
        if key not in self._steps:
            if len(self._steps) >= _REMEMBERED_SIZES:
                self._steps.clear()
            before = [profile.first_at_size(exit_) - 1 for exit_ in range(1, profile.exits + 1)]
            stages = profile.stages(sizes)
            self._steps[key] = StepCosts(stages, before, self._biases[model])
        return self._steps[key]

    def preparation_s(self, model: str, height: int, width: int) -> tuple[float, ...]:
        """Base times of getting ready for images of so many px, at each size that is computed.

        0 for a size that came lately.

        Raises:
            UnknownModelError: no such model.
        """
        profile = self.profile(model)
        sizes = profile.computed_sizes(height, width)
        each_s = (profile.prepare_s_per_px * size[0] * size[1] for size in sizes)
        ready = ((model, size) in self._ready for size in sizes)
        return tuple(0.0 if known else s for s, known in zip(each_s, ready, strict=True))

    def note_size(self, model: str, height: int, width: int, exit_: int) -> None:
        """An image of so many px is going to be, or was, computed to an exit (from 1).

        Raises:
            UnknownModelError: no such model.
        """
        profile = self.profile(model)
        sizes = profile.computed_sizes(height, width)
        key = (model, sizes[profile.size_of(exit_)])
        self._ready.pop(key, None)
        self._ready[key] = None
        if len(self._ready) > _READY_SIZES:
            del self._ready[next(iter(self._ready))]

    def forget_executor(self) -> None:
        """The executor has begun afresh: it is ready for no size, and remembers no frames."""
        self._ready.clear()
        self._streams.clear()

    def stream(self, job: JobState) -> StreamCosts | None:
        """What the frames of a job's stream take; None where it is no frame of one."""
        if job.stream is None:
            return None
        known = self._streams.get(job.stream)
        if known is None or known.size != (job.height, job.width):
            known = self._streams[job.stream] = StreamCosts((job.height, job.width))
        return known

    def forget_stream(self, stream: str) -> None:
        """A stream is over."""
        self._streams.pop(stream, None)

    def reaction_s(self, model: str, height: int, width: int) -> float:
        """Longest time from a stop to an idle executor, for an image of so many px.

        What is not interrupted grows with the image, but for engines that look by the clock; so it
        is taken to grow beyond the size that was profiled, and not to shrink below it.

        Raises:
            UnknownModelError: no such model.
        """
        key = (model, height, width)
        if key not in self._reactions:
            profile = self.profile(model)
            pixels = max(h * w for h, w in profile.computed_sizes(height, width))
            larger = pixels / max(profile.profiled_pixels(size) for size in profile.sizes)
            if len(self._reactions) >= _REMEMBERED_SIZES:
                self._reactions.clear()
            self._reactions[key] = profile.reaction_s * max(larger, 1.0)
        return self._reactions[key] * max(self.slow_down.mean, 1.0)

    def bias(self, model: str, stage: int) -> float:
        """Factor on the base time of a stage (from 1), for what its profile gets wrong."""
        return math.exp(self._biases[model].logs[stage - 1])

    def typical_shares(self, model: str) -> Sequence[float]:
        """Active share, 0 to 1, that each stage has started with lately."""
        return self._shares[model]

    def decode(self, media_type: str, pixels: int) -> Prediction:
        """Time to turn an image's bytes into the network's input."""
        return self._decode.predict(media_type, pixels)

    def encode(self, encoding: str, pixels: int) -> Prediction:
        """Time to turn a map into the bytes of an answer."""
        return self._encode.predict(encoding, pixels)

    def overhead(self) -> Prediction:
        """Time that a run takes beside the network and its image's decoding.

        What decides, what passes between the processes, and the answers of those that end
        meanwhile: a part of each request's time only where others wait for the executor. Zero until
        one was observed.
        """
        if self._overhead is None:
            return Prediction(0.0, 0.0)
        return self._overhead.predict(_RUN_S)

    def observe_overhead(self, elapsed_s: float) -> None:
        """Learns what a run took beside the network and its image's decoding."""
        if self._overhead is None:
            self._overhead = SlowDown(max(elapsed_s / _RUN_S, 1e-3), sigma=0.3)
        else:
            self._overhead.observe(elapsed_s / _RUN_S)

    def observe_stage(self, base_s: float, elapsed_s: float) -> float:
        """Learns what a stage, or a step, took.

        Args:
            base_s: its base time, as in `StepCosts.step`.
            elapsed_s: its measured time.

        Returns:
            Relative error of the prediction: 0.1 means that it took 10 % longer than predicted.
        """
        if base_s < _TOO_SHORT_S:
            return 0.0
        self.last_error = self.slow_down.observe(elapsed_s / base_s)
        self.version += self.slow_down.has_moved()
        return self.last_error

    def observe_frame(
        self, stream: StreamCosts, exit_: int, base_s: float, elapsed_s: float, share: float
    ) -> None:
        """Learns what a step took in a frame that may have taken over what earlier ones have found.

        Args:
            stream: whose frame.
            exit_: that the step led to.
            base_s: its base time, without the stream's own factor.
            elapsed_s: its measured time.
            share: of the positions that it started with, 0 to 1.
        """
        if base_s >= _TOO_SHORT_S:
            stream.observe(exit_, elapsed_s / (base_s * self.slow_down.mean), share)

    def observe_at_least(self, base_s: float, elapsed_s: float) -> None:
        """Learns from a stage that was stopped after `elapsed_s`: it would have taken longer.

        That tells something only where it already took longer than predicted.
        """
        if base_s >= _TOO_SHORT_S and elapsed_s > base_s * self.slow_down.mean:
            self.slow_down.observe(elapsed_s / base_s)
            self.version += self.slow_down.has_moved()

    def observe_bias(self, model: str, parts: Mapping[int, float], error: float) -> None:
        """Learns from the relative error of a prediction for a step.

        Its stages share the error by their parts of the time, so that the longest learns most, and
        so much that the step's prediction moves as that of a single stage would.

        Args:
            model: its name.
            parts: see `StepCosts.parts`.
            error: 0.1 means that the step took 10 % longer than predicted.
        """
        self._biases[model].learn(parts, error)

    def observe_share(self, model: str, stage: int, share: float) -> None:
        """Learns the active share (0 to 1) that a stage (from 1) started with."""
        shares = self._shares[model]
        shares[stage - 1] += 0.05 * (share - shares[stage - 1])

    def observe_decode(self, media_type: str, pixels: int, elapsed_s: float) -> None:
        """Learns what a decode took."""
        self.version += self._decode.observe(media_type, pixels, elapsed_s)

    def observe_encode(self, encoding: str, pixels: int, elapsed_s: float) -> None:
        """Learns what an encode took."""
        self.version += self._encode.observe(encoding, pixels, elapsed_s)


class _SideCosts:
    """First guesses by format, each corrected by its own filter."""

    def __init__(self, guesses: dict[str, SideCost]) -> None:
        self._default = (SideCost(), SlowDown(sigma=0.3))
        self._known = {name: (guess, SlowDown(sigma=0.3)) for name, guess in guesses.items()}

    def predict(self, name: str, pixels: int) -> Prediction:
        guess, factor = self._known.get(name, self._default)
        return factor.predict(guess.seconds(pixels))

    def observe(self, name: str, pixels: int, elapsed_s: float) -> bool:
        """Whether predictions have moved."""
        guess, factor = self._known.get(name, self._default)
        factor.observe(elapsed_s / guess.seconds(pixels))
        return factor.has_moved()
