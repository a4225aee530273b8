"""The measurement of a network over a split: each exit scored and its cost counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anytime_model import flops
from anytime_model.confidence import Criterion
from anytime_model.data.loading import Batch, collate, normalise
from anytime_model.data.sample import Sample, SampleSource, Skeleton
from anytime_model.engines.base import NetworkEngine
from anytime_model.errors import ConfigError
from anytime_model.evaluation.report import EvaluationReport, ExitScores, number_or_none, optional
from anytime_model.evaluation.scores import Lost, Scorer, scorer
from anytime_model.flops import ConvCost
from anytime_model.networks.base import FamilyConfig, Network, Size, State, one_per_exit
from anytime_model.ops import upsample
from anytime_model.tasks import TASKS

Criteria = Sequence[Criterion | None]


class Measurable(Protocol):
    """What can be measured: a network, or an engine that runs one (`EngineNetwork`)."""

    @property
    def config(self) -> FamilyConfig:
        """Which layers there are."""
        ...

    def masks(self, active: Tensor) -> Mapping[Size, Tensor]:
        """See `Network.masks`."""
        ...

    def __call__(self, image: Tensor, criteria: Criteria | None = None) -> Any:
        """The states after each exit, as `Network.forward` returns them."""
        ...


class EngineNetwork:
    """An engine in place of its network, for batches of one normalised image.

    Args:
        engine: computes the exits.
        network: that it runs.
    """

    def __init__(self, engine: NetworkEngine, network: Network) -> None:
        self._engine = engine
        self._network = network

    @property
    def config(self) -> FamilyConfig:
        """See `Measurable`."""
        return self._network.config

    def masks(self, active: Tensor) -> Mapping[Size, Tensor]:
        """See `Measurable`."""
        return self._network.masks(active)

    def __call__(self, image: Tensor, criteria: Criteria | None = None) -> tuple[State, ...]:
        """The states after each exit of one image (1, 3, H, W); they hold no features.

        Raises:
            ConfigError: several images.
        """
        if len(image) != 1:
            raise ConfigError(f"an engine runs one image at a time; {len(image)} were given.")
        num_exits = self.config.num_exits
        run = self._engine.begin_normalised(image[0].float().cpu().numpy())
        states = []
        masked = False
        for criterion in one_per_exit(criteria, num_exits):
            result = run.advance(criterion)
            masked = masked or criterion is not None
            active = torch.from_numpy(result.active)[None, None] if masked else None
            logits = torch.from_numpy(result.logits)[None]
            states.append(State(result.image_size, result.exit, num_exits, (), logits, active))
        return tuple(states)


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How a network is run over a split.

    Attributes:
        criteria: masks after each exit; None for none.
        criterion: the criterion's name, for the report.
        thresholds: the criterion's numbers, for the report.
        scale: factor that images are enlarged by before the network; maps are brought back.
        flip: average in the maps of the mirrored image. Costs are those of one pass. For pose the
            enlarged image's width should be a multiple of the map's stride, or mirrored maps lie
            up to one px less than that off.
        half: bfloat16 autocast, of a network; an engine has its own arithmetic.
        device: where.
    """

    criteria: Criteria | None = None
    criterion: str | None = None
    thresholds: tuple[float, ...] | None = None
    scale: float = 1.0
    flip: bool = False
    half: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(slots=True)
class _Exit:
    """What is accumulated for one exit."""

    scorer: Scorer
    lost: Lost = field(default_factory=Lost)
    masked: float = 0.0
    macs: float = 0.0
    macs_executed: float = 0.0


class Measurement:
    """Scores of all exits, fed batch by batch.

    Args:
        network: in evaluation mode.
        source: for its outputs and skeleton.
        settings: how to run.

    Raises:
        ConfigError: network and data do not fit together.
    """

    def __init__(
        self, network: Measurable, source: SampleSource, settings: MeasureSettings
    ) -> None:
        config = network.config
        check_fit(config, source)
        self._network = network
        self._source = source
        self._settings = settings
        self._exits = [_Exit(scorer(source)) for _ in range(config.num_exits)]
        self._images = 0
        self._maskable = 0.0
        self._maskable_done = 0.0

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        """Run and score a batch of one image."""
        settings, map_stride = self._settings, self._network.config.map_stride
        states, maps = run_image(self._network, batch.images, settings, self._source.skeleton)
        size = (batch.images.shape[-2], batch.images.shape[-1])
        self._images += 1
        previous: State | None = None
        before: Tensor | None = None
        for state, scored, totals in zip(states, maps, self._exits, strict=True):
            self._count(state, previous, totals)
            right = totals.scorer.add(scored, batch, map_stride=map_stride, scale=settings.scale)
            totals.lost.add(before, right, batch)
            before = right
            totals.scorer.add_confidence(scored, batch, settled_pixels(state, size, map_stride))
            previous = state

    def report(self, model: str, data: str) -> EvaluationReport:
        """What has been found so far."""
        settings, images = self._settings, max(1, self._images)
        saved = 1 - self._maskable_done / self._maskable if self._maskable else 0.0
        return EvaluationReport(
            model=model,
            data=data,
            metric=TASKS[self._source.task].metric.label,
            images=self._images,
            scale=settings.scale,
            flip=settings.flip,
            criterion=settings.criterion,
            thresholds=settings.thresholds,
            maskable_saved=saved,
            exits=tuple(
                self._exit_report(k, totals, images) for k, totals in enumerate(self._exits, 1)
            ),
        )

    def _exit_report(self, number: int, totals: _Exit, images: int) -> ExitScores:
        names = [label.name for label in self._source.outputs]
        by_output = map(number_or_none, totals.scorer.per_output.tolist())
        return ExitScores(
            exit=number,
            score=totals.scorer.score,
            by_output=dict(zip(names, by_output, strict=True)),
            accuracy=totals.scorer.second,
            calibration_error=totals.scorer.calibration_error,
            masked=totals.masked / images,
            masked_right=totals.scorer.settled_right,
            macs=totals.macs / images,
            macs_executed=totals.macs_executed / images,
            lost=totals.lost.share,
            failure_ranking=optional(totals.scorer.failure_ranking),
        )

    def _count(self, state: State, before: State | None, totals: _Exit) -> None:
        """Add what this exit's stage cost on this image, and all stages before it."""
        masks = None
        if before is not None and before.active is not None:
            masks = self._network.masks(before.active)
        costs = flops.conv_costs(self._network.config, *state.image_size)
        paper = flops.stage_macs(costs, state.exit, masks, ConvCost.paper)
        executed = flops.stage_macs(costs, state.exit, masks, ConvCost.executed)
        for later in self._exits[state.exit - 1 :]:
            later.macs += paper
            later.macs_executed += executed
        maskable = [cost for cost in costs if cost.maskable]
        self._maskable += flops.stage_macs(maskable, state.exit, None)
        self._maskable_done += flops.stage_macs(maskable, state.exit, masks)
        totals.masked += 1 - state.active_share


def check_fit(config: FamilyConfig, source: SampleSource) -> None:
    """Refuse data that a network was not made for.

    Raises:
        ConfigError: another task or number of outputs.
    """
    outputs = len(source.outputs)
    if outputs != config.outputs or source.task != config.task:
        raise ConfigError(
            f"the network is for {config.task} with {config.outputs} outputs, "
            f"the data for {source.task} with {outputs}; choose the data it was trained on."
        )


def evenly(source: SampleSource, limit: int | None) -> Iterator[Sample]:
    """The samples of a split, or only so many, evenly spaced."""
    count = len(source) if limit is None else min(limit, len(source))
    return (source[i * len(source) // count] for i in range(count))


def settled_pixels(state: State, size: Size, map_stride: int) -> Tensor | None:
    """Pixels of the image (H, W) that need no more work, (B, H, W) boolean, or None for none."""
    if state.active is None:
        return None
    cells = state.active.repeat_interleave(map_stride, -2).repeat_interleave(map_stride, -1)
    cropped = cells[..., : state.image_size[0], : state.image_size[1]].float()
    active = F.interpolate(cropped, size=size, mode="nearest").squeeze(1) > 0
    return ~active.cpu()


def run_image(
    network: Measurable, images: Tensor, settings: MeasureSettings, skeleton: Skeleton | None = None
) -> tuple[tuple[State, ...], list[Tensor]]:
    """All exits on a batch, as the settings say.

    Args:
        network: in evaluation mode.
        images: (B, 3, H, W) uint8 RGB.
        settings: how.
        skeleton: which joint becomes which in a mirrored image, for a flip test of pose.

    Returns:
        The states of the plain pass; and each exit's map as `Task.crop` returns it, on the CPU and
        float32: class logits at the size of the images, or heat-maps of the enlarged ones.
    """
    config = network.config
    task = TASKS[config.task]
    size = (images.shape[-2], images.shape[-1])
    x = normalise(images.to(settings.device))
    if settings.scale != 1:
        x = upsample(x, [round(n * settings.scale) for n in size])
    with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.half):
        states: tuple[State, ...] = network(x, settings.criteria)
        mirrored = network(x.flip(-1), settings.criteria) if settings.flip else ()

    def scored(state: State) -> Tensor:
        if state.logits is None:
            raise ConfigError("the network has made no exit.")
        return task.crop(state.logits.float(), state.image_size, size, config.map_stride).cpu()

    maps = [scored(state) for state in states]
    swap = None if skeleton is None else skeleton.flip
    for k, state in enumerate(mirrored):
        maps[k] = (maps[k] + task.flip(scored(state), swap)) / 2
    return states, maps


def measure(
    network: Measurable,
    source: SampleSource,
    settings: MeasureSettings,
    *,
    model: str,
    data: str,
    limit: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> EvaluationReport:
    """Score a network over a split.

    Args:
        network: a network is put into evaluation mode.
        source: the split.
        settings: how to run.
        model: the model's name, for the report.
        data: the data's name, for the report.
        limit: only so many images, evenly spaced.
        tick: called after each image.
    """
    if isinstance(network, Network):
        network.eval()
    measurement = Measurement(network, source, settings)
    for sample in evenly(source, limit):
        measurement.add(collate([sample]))
        tick()
    return measurement.report(model, data)
