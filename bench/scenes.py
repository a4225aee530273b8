"""Videos whose labels are known: a standing camera with cut-outs that move, and CamVid's clip."""

from dataclasses import dataclass

import cv2
import numpy as np

from anytime_model.data.camvid import CLASSES, CamVid

MOVING = [
    index for index, label in enumerate(CLASSES) if label.name in {"car", "pedestrian", "bicyclist"}
]
LEAST_PX = 300
"""Of a cut-out."""


@dataclass(frozen=True)
class CutOut:
    """Something that moves: where it is in the frame that it comes from, and how fast it goes.

    Attributes:
        pixels: (h, w, 3) uint8.
        labels: (h, w) uint8.
        mask: (h, w) boolean, what belongs to it.
        corner: row and column of its upper left pixel at frame 0.
        speed: px to the right in each frame.
    """

    pixels: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    corner: tuple[int, int]
    speed: int


def cut_outs(sample, rng):
    """Cars and people of a frame, each at its place."""
    for kind in MOVING:
        mask = (sample.labels == kind).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
        for part in range(1, count):
            x, y, width, height, area = stats[part]
            if area < LEAST_PX or area > mask.size / 8:
                continue
            box = np.s_[y : y + height, x : x + width]
            is_car = CLASSES[kind].name == "car"
            speed = int(rng.integers(2, 6) if is_car else rng.integers(1, 3))
            yield CutOut(
                sample.image[box],
                sample.labels[box],
                parts[box] == part,
                (y, x),
                int(rng.choice([-1, 1])) * speed,
            )


class StandingCamera:
    """A frame of CamVid in which cut-outs of others move to and fro; labels are exact.

    Args:
        root: of CamVid.
        moving: share of the pixels that cut-outs cover at frame 0.
        seed: which frame, which cut-outs and how they move.
    """

    def __init__(self, root, moving, seed):
        rng = np.random.default_rng(seed)
        source = CamVid(root, "test")
        self.background = source[int(rng.integers(len(source)))]
        others = CamVid(root, "train")
        self.cut_outs = []
        covered = np.zeros(self.background.labels.shape, bool)
        while covered.mean() < moving:
            for found in cut_outs(others[int(rng.integers(len(others)))], rng):
                (y, x), (h, w) = found.corner, found.mask.shape
                new = found.mask & ~covered[y : y + h, x : x + w]
                if covered.mean() + new.mean() * new.size / covered.size > moving * 1.1:
                    continue
                covered[y : y + h, x : x + w] |= found.mask
                self.cut_outs.append(found)

    def frame(self, number):
        """Image (H, W, 3) and labels (H, W) of a frame."""
        image, labels = self.background.image.copy(), self.background.labels.copy()
        width = labels.shape[1]
        for one in self.cut_outs:
            h, w = one.mask.shape
            x = _to_and_fro(one.corner[1] + one.speed * number, width - w)
            box = np.s_[one.corner[0] : one.corner[0] + h, x : x + w]
            image[box][one.mask] = one.pixels[one.mask]
            labels[box][one.mask] = one.labels[one.mask]
        return image, labels


class Clip:
    """CamVid's validation split: one clip of a moving car, every second frame of 30 a second."""

    def __init__(self, root):
        self.source = CamVid(root, "val")

    def __len__(self):
        return len(self.source)

    def frame(self, number):
        """Image (H, W, 3) and labels (H, W) of a frame."""
        sample = self.source[number]
        return sample.image, sample.labels


def _to_and_fro(x, most):
    return most - abs(x % (2 * most) - most) if most else 0


def brought_to(image, labels, size):
    """A frame at (H, W) px: as wide as that, and cut to its height in the middle."""
    height, width = size
    if image.shape[:2] == size:
        return image, labels
    tall = max(height, round(image.shape[0] * width / image.shape[1]))
    top = (tall - height) // 2
    image = cv2.resize(image, (width, tall), interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, (width, tall), interpolation=cv2.INTER_NEAREST)
    return (np.ascontiguousarray(part[top : top + height]) for part in (image, labels))


def noisy(image, sigma, seed):
    """An image with a camera's noise, sigma levels of 0 to 255."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, sigma, image.shape).astype(np.float32)
    return (image + noise).round().clip(0, 255).astype(np.uint8)
