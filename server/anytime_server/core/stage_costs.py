"""What stages cost on the unburdened machine, and the steps from exit to exit that they make up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

_BIAS_LEARNING: Final = 0.1
_BIAS_MEMORY: Final = 0.999
_BIAS_MOST: Final = math.log(2.0)
"""A stage's bias, as a logarithm, moves by this share of an error, fades by this factor with each,
as else bias and slow-down might drift against each other, and stays within these limits."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """Cost of one stage at one input size on the unburdened machine.

    Attributes:
        fixed_s: seconds that no mask saves.
        active_s: seconds that shrink with the share of active pixels.
        fixed_gmacs: 1e9 multiply-adds that no mask saves.
        active_gmacs: 1e9 multiply-adds that shrink with the share of active pixels.
        exit_s: seconds of all these that its exit takes with every pixel active; where exits may be
            left out, masks save nothing else.
        exit_gmacs: 1e9 multiply-adds of the same.
    """

    fixed_s: float
    active_s: float
    fixed_gmacs: float = 0.0
    active_gmacs: float = 0.0
    exit_s: float = 0.0
    exit_gmacs: float = 0.0

    def seconds(self, share: float) -> float:
        """Base time at an active share from 0 to 1."""
        return self.fixed_s + self.active_s * share

    def gmacs(self, share: float) -> float:
        """1e9 multiply-adds at an active share from 0 to 1."""
        return self.fixed_gmacs + self.active_gmacs * share

    @property
    def features_s(self) -> float:
        """Base time without its exit."""
        return max(self.seconds(1.0) - self.exit_s, 0.0)

    @property
    def features_gmacs(self) -> float:
        """1e9 multiply-adds without its exit."""
        return max(self.gmacs(1.0) - self.exit_gmacs, 0.0)

    @property
    def parts(self) -> tuple[float, ...]:
        """All its costs, in the order in which they are given."""
        timed = (self.fixed_s, self.active_s, self.fixed_gmacs, self.active_gmacs)
        return (*timed, self.exit_s, self.exit_gmacs)

    def scaled(self, factor: float) -> StageCost:
        """The same stage on `factor` times the pixels."""
        return StageCost(*[part * factor for part in self.parts])

    def mixed(self, other: StageCost, share: float) -> StageCost:
        """This stage's costs and `share` (0 to 1) of the way to another's."""
        both = zip(self.parts, other.parts, strict=True)
        return StageCost(*[mine + share * (theirs - mine) for mine, theirs in both])


class Biases:
    """Factors on the base times of a model's stages, for what its profile gets wrong.

    Args:
        stages: how many.

    Attributes:
        logs: their logarithms.
        version: rises with every change.
    """

    __slots__ = ("logs", "version")

    def __init__(self, stages: int) -> None:
        self.logs = [0.0] * stages
        self.version = 0

    def learn(self, parts: Mapping[int, float], error: float) -> None:
        """See `CostModel.observe_bias`."""
        step = _BIAS_LEARNING * math.log1p(min(max(error, -0.5), 1.0))
        step /= sum(part * part for part in parts.values())
        for stage, part in parts.items():
            bias = _BIAS_MEMORY * self.logs[stage - 1] + step * part
            self.logs[stage - 1] = min(max(bias, -_BIAS_MOST), _BIAS_MOST)
        self.version += 1


class StepCosts:
    """What the steps between a model's exits take for images of one size; see `CostModel.steps`.

    Base times: the machine's factor is not in them, what was learnt of each stage is.

    Args:
        stages: base costs of all stages.
        before_size: for each exit, the last exit, 0 for none, before those of its size.
        biases: of the model, shared by all its sizes.

    Attributes:
        stages: base costs of all stages.
    """

    __slots__ = ("_before_size", "_biases", "_factors", "_gmacs", "_known", "_seconds", "stages")

    def __init__(
        self, stages: Sequence[StageCost], before_size: Sequence[int], biases: Biases
    ) -> None:
        self.stages = stages
        self._before_size = before_size
        self._gmacs = tuple(accumulate((s.features_gmacs for s in stages), initial=0.0))
        self._biases = biases
        self._known = -1
        self._factors: tuple[float, ...] = ()
        self._seconds: tuple[float, ...] = ()

    def current(self) -> StepCosts:
        """These, with what has been learnt until now."""
        if self._known != self._biases.version:
            self._known = self._biases.version
            self._factors = tuple(map(math.exp, self._biases.logs))
            features = (s.features_s * f for s, f in zip(self.stages, self._factors, strict=True))
            self._seconds = tuple(accumulate(features, initial=0.0))
        return self

    def starts_size(self, made: int, exit_: int) -> bool:
        """Whether a step from an exit (0 for none) to a later one is the first at its size.

        Nothing is masked there.
        """
        return made <= self._before_size[exit_ - 1]

    def step(self, made: int, exit_: int, share: float) -> tuple[float, float]:
        """Base seconds and 1e9 multiply-adds of a step.

        Args:
            made: exit that it starts from, 0 for none.
            exit_: that it leads to.
            share: active share, 0 to 1, with which that is made.
        """
        last = exit_ - 1
        begin, stage = max(made, self._before_size[last]), self.stages[last]
        seconds = (stage.fixed_s + stage.active_s * share) * self._factors[last]
        gmacs = stage.fixed_gmacs + stage.active_gmacs * share
        if begin == last:
            return seconds, gmacs
        seconds += self._seconds[last] - self._seconds[begin]
        return seconds, gmacs + self._gmacs[last] - self._gmacs[begin]

    def parts(self, made: int, exit_: int, share: float) -> dict[int, float]:
        """The part, above 0 and up to 1, that each stage (from 1) has in the time of a step."""
        last = exit_ - 1
        begin = max(made, self._before_size[last])
        timed = {k + 1: self._seconds[k + 1] - self._seconds[k] for k in range(begin, last)}
        timed[exit_] = self.stages[last].seconds(share) * self._factors[last]
        whole = sum(timed.values())
        if not whole:
            return {exit_: 1.0}
        return {stage: seconds / whole for stage, seconds in timed.items() if seconds}
