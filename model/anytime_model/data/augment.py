"""Augmentation of images together with their labels or joints.

A pipeline is a function of a sample and a seed, so that a training can be repeated and resumed
exactly. Pixels are transformed by albumentations and OpenCV.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import cv2
import numpy as np

# Importing albumentations asks the network for a newer release unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from anytime_model.data.sample import IGNORE, OUTSIDE, Sample, Skeleton


@dataclass(frozen=True, slots=True)
class SegmentationAugmentation:
    """Scale, crop, mirror and recolour a street scene.

    Attributes:
        crop: (H, W) of what is trained on, px.
        scales: smallest and largest factor that a image is enlarged by.
        mirror: whether half of the images are mirrored.
        colour: strength of brightness, contrast and saturation jitter, 0 for none; hue gets a
            quarter of it.
        blur: probability of a Gaussian blur or of sensor noise.
        light: probability of each change of the light: gamma of 0.5 to 1.8, colour temperature,
            an offset of each channel, shadows.
    """

    crop: tuple[int, int]
    scales: tuple[float, float] = (0.5, 2.0)
    mirror: bool = True
    colour: float = 0.0
    blur: float = 0.0
    light: float = 0.0

    @property
    def output_size(self) -> tuple[int, int]:
        """(H, W) of augmented images, px."""
        return self.crop

    def build(self) -> SegmentationPipeline:
        """The pipeline that these settings describe."""
        return SegmentationPipeline(self)


class SegmentationPipeline:
    """`SegmentationAugmentation`, ready to run."""

    def __init__(self, settings: SegmentationAugmentation) -> None:
        height, width = settings.crop
        low, high = settings.scales
        steps: list[A.BasicTransform | A.BaseCompose] = [
            A.RandomScale(scale_limit=(low - 1, high - 1), interpolation=cv2.INTER_LINEAR, p=1.0),
            A.PadIfNeeded(
                height, width, border_mode=cv2.BORDER_CONSTANT, fill=OUTSIDE, fill_mask=IGNORE
            ),
            A.RandomCrop(height, width),
        ]
        if settings.mirror:
            steps.append(A.HorizontalFlip(p=0.5))
        appearance = _appearance(settings.colour, settings.blur)
        self._compose = A.Compose([*steps, *_light(settings.light), *appearance])

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The sample after augmentation; the same seed does the same."""
        self._compose.set_random_seed(seed)
        done = self._compose(image=sample.image, mask=sample.labels)
        return replace(sample, image=done["image"], labels=done["mask"])


@dataclass(frozen=True, slots=True)
class PoseAugmentation:
    """Turn, scale, shift, mirror and recolour a person.

    Attributes:
        size: (H, W) that the network is given, px.
        scale: largest deviation of the factor from 1.
        rotate_degrees: largest turn to either side.
        rotate_share: probability of a turn.
        shift: largest shift as a share of the image's side.
        mirror: whether half of the images are mirrored (left and right joints change places).
        colour: as in `SegmentationAugmentation`.
        blur: as in `SegmentationAugmentation`.
    """

    size: tuple[int, int]
    scale: float = 0.25
    rotate_degrees: float = 30.0
    rotate_share: float = 0.6
    shift: float = 0.0
    mirror: bool = True
    colour: float = 0.0
    blur: float = 0.0

    @property
    def output_size(self) -> tuple[int, int]:
        """(H, W) of augmented images, px."""
        return self.size

    def build(self, skeleton: Skeleton) -> PosePipeline:
        """The pipeline that these settings describe, for people with this skeleton."""
        return PosePipeline(self, skeleton)


class PosePipeline:
    """`PoseAugmentation`, ready to run."""

    def __init__(self, settings: PoseAugmentation, skeleton: Skeleton) -> None:
        self._settings = settings
        self._flip = list(skeleton.flip)
        self._compose = A.Compose(_appearance(settings.colour, settings.blur))

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The sample after augmentation; the same seed does the same.

        A joint that leaves the image is no longer visible.
        """
        if sample.joints is None:
            return sample
        random = np.random.default_rng(seed)
        matrix, mirrored, factor = self._draw(sample.image.shape[:2], random)
        height, width = self._settings.size
        image = cv2.warpAffine(
            sample.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=OUTSIDE
        )
        joints = sample.joints[self._flip] if mirrored else sample.joints
        moved = joints.copy()
        moved[:, :2] = joints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        inside = (moved[:, :2] >= 0).all(1) & (moved[:, :2] <= (width - 1, height - 1)).all(1)
        moved[:, 2] *= inside
        self._compose.set_random_seed(int(random.integers(2**31)))
        head = None if sample.head_px is None else sample.head_px * factor
        recoloured = self._compose(image=image)["image"]
        return replace(sample, image=recoloured, joints=moved.astype(np.float32), head_px=head)

    def _draw(
        self, shape: tuple[int, ...], random: np.random.Generator
    ) -> tuple[np.ndarray, bool, float]:
        """The affine map from source to target px, whether it mirrors, and its factor."""
        settings = self._settings
        height, width = settings.size
        factor = 1 + random.uniform(-settings.scale, settings.scale)
        factor *= max(height, width) / max(shape)
        degrees = random.uniform(-1, 1) * settings.rotate_degrees
        turned = random.random() < settings.rotate_share
        shift = random.uniform(-settings.shift, settings.shift, 2) * (width, height)
        mirrored = bool(settings.mirror and random.random() < 0.5)
        angle = np.deg2rad(degrees) if turned else 0.0
        linear = factor * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        if mirrored:
            linear = linear @ np.diag([-1.0, 1.0])
        centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
        target = np.array([(width - 1) / 2, (height - 1) / 2]) + shift
        offset = target - linear @ centre
        return np.column_stack([linear, offset]), mirrored, float(factor)


def _appearance(colour: float, blur: float) -> list[A.BasicTransform | A.BaseCompose]:
    steps: list[A.BasicTransform | A.BaseCompose] = []
    if colour:
        steps.append(
            A.ColorJitter(
                brightness=(1 - colour, 1 + colour),
                contrast=(1 - colour, 1 + colour),
                saturation=(1 - colour, 1 + colour),
                hue=(-colour / 4, colour / 4),
                p=0.9,
            )
        )
    if blur:
        steps.append(A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.GaussNoise()], p=blur))
    return steps


def _light(share: float) -> list[A.BasicTransform | A.BaseCompose]:
    if not share:
        return []
    return [
        A.RandomGamma(gamma_limit=(50, 180), p=share),
        A.PlanckianJitter(p=share),
        A.RGBShift(r_shift_limit=20, g_shift_limit=20, b_shift_limit=20, p=share),
        A.RandomShadow(p=share),
    ]
