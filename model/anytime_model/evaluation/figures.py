"""Figures: accuracy over computation, and a sheet of one image's exits (paper, Figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import ImageColor

from anytime_model.data.sample import IGNORE
from anytime_model.evaluation.report import EvaluationReport
from anytime_model.flops import GIGA
from anytime_model.labels import Label

FROZEN_RIGHT = (0, 158, 115)
FROZEN_WRONG = (213, 94, 0)
"""Settled pixels, right and wrong: green and vermilion, told apart by most colour-blind people."""
RIGHT, WRONG, UNKNOWN = (255, 255, 255), (0, 0, 0), (128, 128, 128)

_DPI = 150


def draw_trade_off(reports: Sequence[EvaluationReport], path: Path) -> None:
    """Accuracy over multiply-adds, a curve a report, a point an exit; as the file's suffix says."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    for report in reports:
        thresholds = ", ".join(f"{t:g}" for t in dict.fromkeys(report.thresholds or ()))
        label = f"{report.model}, {f'masks at {thresholds}' if thresholds else 'no masks'}"
        axes.plot(
            [e.macs / GIGA for e in report.exits],
            [100 * e.score for e in report.exits],
            marker="o",
            label=label,
        )
    first = reports[0]
    axes.set_xlabel("multiply-adds (2^30), paper's convention")
    axes.set_ylabel(f"{first.metric} (%)")
    axes.set_title(f"{first.data}, {first.images} images, input scale {first.scale:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=_DPI)


@dataclass(frozen=True, slots=True)
class ExitView:
    """What one exit made of one image, at the image's size.

    Attributes:
        predicted: (H, W) class ids.
        confidence: (H, W) in 0 to 1.
        settled: (H, W) whether the pixel needs no more work.
    """

    predicted: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    settled: npt.NDArray[np.bool_]


def draw_sheet(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    views: Sequence[ExitView],
    outputs: Sequence[Label],
    path: Path,
) -> None:
    """A column for the image and its truth, and one for each exit.

    Rows: the prediction; its confidence; and where it is right (white) or wrong (black), with
    settled pixels in green where right and vermilion where wrong.
    """
    colours = np.full((256, 3), UNKNOWN, dtype=np.uint8)
    for index, label in enumerate(outputs):
        colours[index] = ImageColor.getrgb(label.color)
    figure, grid = _grid(image, len(views) + 1)
    _show(grid[0, 0], image, "image")
    _show(grid[1, 0], colours[labels], "truth")
    for k, view in enumerate(views, start=1):
        right = (view.predicted == labels) & (labels != IGNORE)
        share = right.sum() / max(1, (labels != IGNORE).sum())
        _show(grid[0, k], colours[view.predicted], f"exit {k}")
        grid[1, k].imshow(view.confidence, vmin=0, vmax=1, cmap="viridis")
        _titled(grid[1, k], f"confidence {view.confidence.mean():.2f}")
        _show(
            grid[2, k],
            judged(view, labels),
            f"{100 * share:.1f} % right, {100 * view.settled.mean():.0f} % settled",
        )
    figure.savefig(path, dpi=_DPI)


@dataclass(frozen=True, slots=True)
class PoseView:
    """What one exit made of one person, in the image's px.

    Attributes:
        joints: (J, 3): x, y and the heat-map's peak.
        confidence: (H, W), the largest heat-map value.
        settled: (H, W) whether the pixel needs no more work.
    """

    joints: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    settled: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Person:
    """The image of a person, and the truth about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        joints: (J, 3): x, y in px, and 1 where visible.
        head_px: length of the head.
        bones: pairs of joints to connect.
    """

    image: npt.NDArray[np.uint8]
    joints: npt.NDArray[np.float32]
    head_px: float
    bones: Sequence[Sequence[int]]


def draw_pose_sheet(
    person: Person, views: Sequence[PoseView], outputs: Sequence[Label], path: Path
) -> None:
    """A column for the image and its truth, and one for each exit.

    Rows: the skeleton, its joints green where within half a head's length of the truth and
    vermilion elsewhere; the largest heat-map value; and the image with settled pixels greyed.
    """
    figure, grid = _grid(person.image, len(views) + 1)
    visible = person.joints[:, 2] > 0
    _show(grid[0, 0], person.image, "image")
    _show(grid[1, 0], person.image, "truth")
    _bones(grid[1, 0], person.joints, visible, person.bones, outputs)
    for k, view in enumerate(views, start=1):
        distance = np.linalg.norm(view.joints[:, :2] - person.joints[:, :2], axis=1)
        right = distance <= person.head_px / 2
        _show(grid[0, k], person.image, f"exit {k}: {(right & visible).sum()} of {visible.sum()}")
        _bones(grid[0, k], view.joints, visible, person.bones, outputs)
        for found, colour in ((visible & right, FROZEN_RIGHT), (visible & ~right, FROZEN_WRONG)):
            x, y = view.joints[found, :2].T
            grid[0, k].scatter(x, y, s=9, color=np.array(colour) / 255, zorder=3)
        grid[1, k].imshow(view.confidence, vmin=0, vmax=1, cmap="viridis")
        _titled(grid[1, k], f"peaks {view.joints[:, 2].mean():.2f}")
        grey = np.where(view.settled[..., None], person.image // 4 + 144, person.image)
        _show(grid[2, k], grey.astype(np.uint8), f"{100 * view.settled.mean():.0f} % settled")
    figure.savefig(path, dpi=_DPI)


def _bones(
    axes: Axes,
    joints: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
    bones: Sequence[Sequence[int]],
    outputs: Sequence[Label],
) -> None:
    for a, b in bones:
        if visible[a] and visible[b]:
            axes.plot(joints[[a, b], 0], joints[[a, b], 1], color=outputs[b].color, linewidth=1.2)


def judged(view: ExitView, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Right, wrong, settled and unknown pixels in their colours, (H, W, 3)."""
    right = view.predicted == labels
    image = np.where(
        right[..., None], np.array(RIGHT, dtype=np.uint8), np.array(WRONG, dtype=np.uint8)
    )
    image[view.settled & right] = FROZEN_RIGHT
    image[view.settled & ~right] = FROZEN_WRONG
    image[labels == IGNORE] = UNKNOWN
    return image


def _grid(image: npt.NDArray[np.uint8], columns: int) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure with three rows of images like this one; the array holds their axes."""
    height = 2.1 * 3 * image.shape[0] / image.shape[1] + 0.5
    figure = Figure(figsize=(2.1 * columns, height), layout="constrained")
    grid = figure.subplots(3, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def _show(axes: Axes, image: npt.NDArray[np.uint8], title: str) -> None:
    axes.imshow(image)
    _titled(axes, title)


def _titled(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8)
