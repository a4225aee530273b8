"""What differs between segmentation and pose: confidence, the kind of criterion, and decoding.

One backbone serves both tasks. Losses and metrics of training belong to `training` and
`evaluation`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anytime_model import confidence
from anytime_model.confidence import Criterion
from anytime_model.config import TaskName
from anytime_model.errors import ConfigError
from anytime_model.hrnet import upsample

MAP_STRIDE = 4
"""Maps are made at 1/4 of the (padded) image's resolution."""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of dense prediction.

    Attributes:
        name: "segmentation" or "pose".
        confidence: a map (B, K, h, w) to its confidence (B, 1, h, w).
        criteria: the criteria that make sense for it, by name, each built from one number (a
            threshold or a share). The first is the paper's.
        metric: the name of its usual measure of quality.
    """

    name: TaskName
    confidence: Callable[[Tensor], Tensor]
    criteria: Mapping[str, Callable[[float], Criterion]]
    metric: str

    def criterion(self, name: str, value: float) -> Criterion:
        """The criterion `name` with its threshold or share.

        Raises:
            ConfigError: there is no such criterion for this task, or the value is out of range.
        """
        if name not in self.criteria:
            raise ConfigError(
                f"{name!r} is no criterion for {self.name}; expected one of "
                f"{', '.join(self.criteria)}."
            )
        return self.criteria[name](value)


SEGMENTATION = Task(
    "segmentation",
    confidence.maximum_probability,
    {
        "max_probability": confidence.MaximumProbability,
        "entropy": confidence.Entropy,
        "top_share": confidence.TopShare,
        "random": confidence.RandomShare,
    },
    metric="mIoU",
)
POSE = Task(
    "pose",
    confidence.heatmap_maximum,
    {"heatmap_maximum": confidence.HeatmapMaximum, "random": confidence.RandomShare},
    metric="PCKh@0.5",
)
TASKS: Mapping[str, Task] = {task.name: task for task in (SEGMENTATION, POSE)}


def decode_labels(logits: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Class of every pixel: bilinear upsampling by 4, cropped to the image, then the largest logit.

    Args:
        logits: (B, K, h, w) at 1/4 of the padded size.
        image_size: (H, W), px.

    Returns:
        (B, H, W) uint8.
    """
    height, width = image_size
    full = upsample(logits, (MAP_STRIDE * logits.shape[-2], MAP_STRIDE * logits.shape[-1]))
    return full[..., :height, :width].argmax(dim=1).to(torch.uint8)


def decode_keypoints(heatmaps: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Joints at the peaks of their heat-maps, moved a quarter cell towards the higher neighbour.

    The quarter step is HRNet's (Sun et al., CVPR 2019). Cell u of a map covers the image from 4u to
    4u + 3, so its centre lies at 4u + 1.5.

    Args:
        heatmaps: (B, J, h, w) at 1/4 of the padded size.
        image_size: (H, W), px; peaks in the padding are not looked at.

    Returns:
        (B, J, 3) float32: x, y in image px (pixel centres at integers), and the peak's value.
    """
    height, width = image_size
    inside = heatmaps[..., : -(-height // MAP_STRIDE), : -(-width // MAP_STRIDE)].float()
    rows, columns = inside.shape[-2:]
    score, index = inside.flatten(2).max(dim=2)
    y, x = index // columns, index % columns
    flat = inside.flatten(2)

    def value(row: Tensor, column: Tensor) -> Tensor:
        at = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        return flat.gather(2, at.unsqueeze(2)).squeeze(2)

    step_x = 0.25 * torch.sign(value(y, x + 1) - value(y, x - 1))
    step_y = 0.25 * torch.sign(value(y + 1, x) - value(y - 1, x))
    px = to_image(x + step_x).clamp(0, width - 1)
    py = to_image(y + step_y).clamp(0, height - 1)
    return torch.stack([px, py, score], dim=2)


def to_image(u: Tensor) -> Tensor:
    """Heat-map coordinate to image px."""
    return (u + 0.5) * MAP_STRIDE - 0.5


def to_heatmap(x: Tensor) -> Tensor:
    """Image px to heat-map coordinate; inverse of `to_image`."""
    return (x + 0.5) / MAP_STRIDE - 0.5
