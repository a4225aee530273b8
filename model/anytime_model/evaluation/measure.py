"""The measurement: a network over a split, image by image, each exit scored and its cost counted.

It runs the network and hands maps to `scores`. It decides no threshold and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from anytime_model import flops
from anytime_model.anytime import RESOLUTIONS, AnytimeNetwork, State
from anytime_model.confidence import Criterion, maximum_probability
from anytime_model.config import NUM_EXITS
from anytime_model.data.loading import Batch, collate, normalise
from anytime_model.data.sample import IGNORE, SampleSource, Skeleton
from anytime_model.errors import ConfigError
from anytime_model.evaluation.report import ExitReport, Report, number_or_none
from anytime_model.evaluation.scores import PoseScore, Reliability, SegmentationScore
from anytime_model.flops import ConvCost
from anytime_model.hrnet import upsample
from anytime_model.masking import Masks
from anytime_model.tasks import MAP_STRIDE, TASKS, decode_keypoints

Criteria = Sequence[Criterion | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is run over a split.

    Attributes:
        criteria: masks after exits 1 to 4; None for none.
        criterion: the criterion's name, for the report.
        thresholds: the criterion's numbers, for the report.
        scale: factor that images are enlarged by before the network; maps are brought back.
        flip: average in the maps of the mirrored image. Costs are those of one pass. For pose the
            enlarged image's width should be a multiple of 4, or mirrored maps lie up to 3 px off.
        half: bfloat16 autocast.
        device: where.
    """

    criteria: Criteria | None = None
    criterion: str | None = None
    thresholds: tuple[float, float, float] | None = None
    scale: float = 1.0
    flip: bool = False
    half: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(slots=True)
class _Exit:
    """What is accumulated for one exit."""

    segmentation: SegmentationScore
    head: PoseScore
    torso: PoseScore
    reliability: Reliability = field(default_factory=Reliability)
    masked: float = 0.0
    masked_right: int = 0
    masked_known: int = 0
    macs: float = 0.0
    macs_executed: float = 0.0


class Measurement:
    """Scores of all exits, fed batch by batch.

    Args:
        network: in evaluation mode.
        source: for its outputs and skeleton.
        settings: how to run.
    """

    def __init__(self, network: AnytimeNetwork, source: SampleSource, settings: Settings) -> None:
        outputs = len(source.outputs)
        if outputs != network.config.outputs or source.task != network.config.task:
            raise ConfigError(
                f"the network is for {network.config.task} with {network.config.outputs} outputs, "
                f"the data for {source.task} with {outputs}; choose the data it was trained on."
            )
        self._network = network
        self._source = source
        self._settings = settings
        self._exits = [
            _Exit(SegmentationScore(outputs), PoseScore(outputs, 0.5), PoseScore(outputs, 0.2))
            for _ in range(NUM_EXITS)
        ]
        self._images = 0
        self._maskable = 0.0
        self._maskable_done = 0.0

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        """Run and score a batch of one image."""
        settings = self._settings
        states, maps = run_image(self._network, batch.images, settings, self._source.skeleton)
        self._images += 1
        previous: State | None = None
        for state, full, totals in zip(states, maps, self._exits, strict=True):
            self._count(state, previous, totals)
            if batch.labels is not None:
                _score_labels(full, batch.labels, state, totals)
            elif batch.joints is not None and batch.head_px is not None:
                self._score_joints(full, batch.joints, batch.head_px, totals)
            previous = state

    def report(self, model: str, data: str) -> Report:
        """What has been found so far."""
        settings, images = self._settings, max(1, self._images)
        saved = 1 - self._maskable_done / self._maskable if self._maskable else 0.0
        return Report(
            model=model,
            data=data,
            metric=TASKS[self._source.task].metric,
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

    def _exit_report(self, number: int, totals: _Exit, images: int) -> ExitReport:
        segmentation = self._source.task == "segmentation"
        by_output = totals.segmentation.iou if segmentation else totals.head.per_joint
        names = [label.name for label in self._source.outputs]
        known = totals.masked_known
        return ExitReport(
            exit=number,
            score=totals.segmentation.mean_iou if segmentation else totals.head.mean,
            by_output=dict(zip(names, map(number_or_none, by_output.tolist()), strict=True)),
            accuracy=totals.segmentation.accuracy if segmentation else totals.torso.mean,
            calibration_error=totals.reliability.error if segmentation else None,
            masked=totals.masked / images,
            masked_right=totals.masked_right / known if known else None,
            macs=totals.macs / images,
            macs_executed=totals.macs_executed / images,
        )

    def _count(self, state: State, before: State | None, totals: _Exit) -> None:
        """Add what this exit's stage cost on this image, and all stages before it."""
        masks = None
        if before is not None and before.active is not None:
            masks = Masks.pyramid(before.active, RESOLUTIONS)
        costs = flops.conv_costs(self._network.config, *state.image_size)
        for stage in range(state.exit, NUM_EXITS + 1):
            later = self._exits[stage - 1]
            later.macs += flops.stage_macs(costs, state.exit, masks, ConvCost.paper)
            later.macs_executed += flops.stage_macs(costs, state.exit, masks, ConvCost.executed)
        maskable = [cost for cost in costs if cost.maskable]
        self._maskable += flops.stage_macs(maskable, state.exit, None)
        self._maskable_done += flops.stage_macs(maskable, state.exit, masks)
        totals.masked += 1 - state.active_share

    def _score_joints(
        self, heatmaps: Tensor, joints: Tensor, head_px: Tensor, totals: _Exit
    ) -> None:
        skeleton = self._source.skeleton
        if skeleton is None:
            raise ConfigError("a pose data set needs a skeleton, and this one has none.")
        found = found_joints(heatmaps, self._settings.scale)
        a, b = skeleton.torso
        ends = joints[:, [a, b]]
        torso_px = (ends[:, 0, :2] - ends[:, 1, :2]).norm(dim=-1)
        torso_px = torso_px.where((ends[..., 2] > 0).all(1), float("nan"))
        totals.head.add(found, joints, head_px)
        totals.torso.add(found, joints, torso_px)


def found_joints(heatmaps: Tensor, scale: float) -> Tensor:
    """Joints (B, J, 3) in px of the image as it was before it was enlarged by `scale`."""
    height, width = (MAP_STRIDE * n for n in heatmaps.shape[-2:])
    found = decode_keypoints(heatmaps, (height, width))
    found[..., :2] = (found[..., :2] + 0.5) / scale - 0.5
    return found


def _score_labels(logits: Tensor, labels: Tensor, state: State, totals: _Exit) -> None:
    """Score class logits (B, K, H, W) that have the labels' size."""
    predicted = logits.argmax(1)
    totals.segmentation.add(predicted, labels)
    known = labels != IGNORE
    right = predicted == labels
    confidence = maximum_probability(logits).squeeze(1)
    totals.reliability.add(confidence[known], right[known])
    if state.active is not None:
        cells = state.active.repeat_interleave(MAP_STRIDE, -2)
        padded = cells.repeat_interleave(MAP_STRIDE, -1)
        cropped = padded[..., : state.image_size[0], : state.image_size[1]].float()
        active = F.interpolate(cropped, size=labels.shape[-2:], mode="nearest").squeeze(1) > 0
        settled = ~active.cpu() & known
        totals.masked_known += int(settled.sum())
        totals.masked_right += int((right & settled).sum())


def run_image(
    network: AnytimeNetwork, images: Tensor, settings: Settings, skeleton: Skeleton | None = None
) -> tuple[tuple[State, ...], list[Tensor]]:
    """All exits on a batch, as the settings say.

    Args:
        network: in evaluation mode.
        images: (B, 3, H, W) uint8 RGB.
        settings: how.
        skeleton: which joint becomes which in a mirrored image, for a flip test of pose.

    Returns:
        The states of the plain pass; and each exit's map on the CPU, float32: class logits at the
        size of the images, or heat-maps at a quarter of the enlarged size.
    """
    size = (images.shape[-2], images.shape[-1])
    x = normalise(images.to(settings.device))
    if settings.scale != 1:
        x = upsample(x, [round(n * settings.scale) for n in size])
    with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.half):
        states: tuple[State, ...] = network(x, settings.criteria)
        mirrored = network(x.flip(-1), settings.criteria) if settings.flip else ()
    pose = network.config.task == "pose"
    maps = [_map(network, state, size, pose=pose) for state in states]
    for k, state in enumerate(mirrored):
        back = _map(network, state, size, pose=pose).flip(-1)
        if pose and skeleton is not None:
            back = back[:, list(skeleton.flip)]
        maps[k] = (maps[k] + back) / 2
    return states, maps


def _map(network: AnytimeNetwork, state: State, size: tuple[int, int], *, pose: bool) -> Tensor:
    if state.logits is None:
        raise ConfigError("the network has made no exit.")
    if pose:
        rows, columns = (-(-n // MAP_STRIDE) for n in state.image_size)
        return state.logits[..., :rows, :columns].float().cpu()
    full = network.upsample(state).float().cpu()
    return full if state.image_size == size else upsample(full, size)


def measure(
    network: AnytimeNetwork,
    source: SampleSource,
    settings: Settings,
    *,
    model: str,
    data: str,
    limit: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Report:
    """Score a network over a split.

    Args:
        network: is put into evaluation mode.
        source: the split.
        settings: how to run.
        model: the model's name, for the report.
        data: the data's name, for the report.
        limit: only so many images, evenly spaced.
        tick: called after each image.
    """
    measurement = Measurement(network.eval(), source, settings)
    count = len(source) if limit is None else min(limit, len(source))
    for i in range(count):
        measurement.add(collate([source[i * len(source) // count]]))
        tick()
    return measurement.report(model, data)
