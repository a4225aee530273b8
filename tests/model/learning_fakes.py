"""Miniature data sets in their publishers' layouts, and a tiny recipe to train on one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from anytime_model.config import NetworkConfig
from anytime_model.data.augment import SegmentationAugmentation
from anytime_model.training.losses import CrossEntropy
from anytime_model.training.recipe import Adaptivity, Recipe
from anytime_model.training.recipes import RECIPES
from anytime_model.training.schedules import Poly


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> None:
    """Write a noise image of (H, W) px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def label_map(path: Path, ids: np.ndarray) -> None:
    """Write class ids as an 8-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def halves(size: tuple[int, int], left: int, right: int) -> np.ndarray:
    """Ids of (H, W) px, one value in the left half and another in the right."""
    ids = np.full(size, left)
    ids[:, size[1] // 2 :] = right
    return ids


def camvid_tree(
    root: Path, size: tuple[int, int] = (48, 64), frames: int = 20, seed: int = 0
) -> Path:
    """CamVid with frames whose left half is dark road and right half bright sky."""
    stems = {
        "train": [f"0006R0_f{i:05d}" for i in range(frames // 2)]
        + [f"0016E5_{i:05d}" for i in range(frames // 2)],
        "val": [f"0016E5_{900 + i:05d}" for i in range(8)],
        "test": [f"Seq05VD_f{i:05d}" for i in range(3)],
    }
    random = np.random.default_rng(seed)
    for split, names in stems.items():
        for stem in names:
            ids = halves(size, 3, 0)
            ids[0, 0] = 11
            shade = np.where(ids == 3, 60, 190)[..., None]
            noisy = np.clip(shade + random.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(root / "images" / split / f"{stem}.jpg")
            label_map(root / "labels" / split / f"{stem}.png", ids)
    return root


def lspet_tree(root: Path, people: int = 4) -> Path:
    """LSPET crops of 32x32 px; the last person of each split is flagged."""
    records = []
    for split in ("train", "val", "test"):
        for i in range(people):
            name = f"im{split}{i:03d}"
            picture(root / "images" / split / f"{name}.jpg", (32, 32), seed=i)
            joints = [[4.0 + j, 6.0 + j, 1] for j in range(13)] + [[0, 0, 0]]
            record = {
                "name": name,
                "split": split,
                "joints": joints,
                "head": None if i == 0 else 5.0,
                "extent": 20.0,
            }
            if i == people - 1:
                record["flags"] = ["coincident_joints"]
            records.append(record)
    (root / "annotations.json").write_text(json.dumps({"images": records}), encoding="utf-8")
    (root / "joints.json").write_text("{}", encoding="utf-8")
    return root


def tiny_recipe(**changes: object) -> Recipe:
    """Two epochs of the tiny network on `camvid_tree`, the second with masks."""
    recipe = replace(
        RECIPES["camvid-w18"],
        split="train",
        network=NetworkConfig("tiny", outputs=11),
        augmentation=SegmentationAugmentation((32, 32), (0.8, 1.2), colour=0.2),
        loss=CrossEntropy(strides=(4, 4, 4, 2), balance=True),
        schedule=Poly(warmup_steps=2),
        finish=None,
        adaptivity=Adaptivity((0.3, 0.3, 0.3), from_epoch=1),
        epochs=2,
        batch=4,
        average=0.9,
        half=False,
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


class Silent:
    """A watcher that remembers and shows nothing."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.scores: list[tuple[float, ...]] = []
        self.active: list[tuple[float, ...]] = []

    def step(self, epoch: int, done: int, total: int, report: object) -> None:
        self.losses.append(report.loss)  # type: ignore[attr-defined]
        self.active.append(report.active)  # type: ignore[attr-defined]

    def checked(self, epoch: int, scores: tuple[float, ...]) -> None:
        self.scores.append(scores)
