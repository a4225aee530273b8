"""Miniature data sets in their publishers' layouts, and a tiny recipe to train on one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat

from anytime_model.data import pascal_context
from anytime_model.data.augment import SegmentationAugmentation
from anytime_model.networks.hrnet.config import NetworkConfig
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
        last_epochs=None,
        adaptivity=Adaptivity((0.3, 0.3, 0.3), from_epoch=1),
        epochs=2,
        batch=4,
        average=0.9,
        half=False,
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


def cityscapes_tree(root: Path) -> Path:
    for split, city in (("train", "aachen"), ("val", "lindau")):
        stem = f"{city}_000000_000019"
        picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", (8, 12))
        ids = halves((8, 12), 7, 33)
        ids[0, 0] = 0
        label_map(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids)
    return root


def context_tree(root: Path, *, published: bool) -> Path:
    base = root / "VOCdevkit" / "VOC2010"
    names = ["2008_000001", "2008_000002"]
    for name in names:
        picture(base / "JPEGImages" / f"{name}.jpg", (6, 10))
    if published:
        (base / "trainval").mkdir(parents=True)
        lines = [f"{3 * i + 1}: {name}" for i, name in enumerate(pascal_context.NAMES)]
        (base / "labels.txt").write_text("\n".join([*lines, "400: zebra"]), encoding="utf-8")
        ids = halves((6, 10), 1, 3 * 58 + 1)
        ids[0, 0] = 400
        savemat(base / "trainval" / f"{names[0]}.mat", {"LabelMap": ids.astype(np.uint16)})
        lists = base / "ImageSets" / "Main"
    else:
        ids = halves((6, 10), 1, 59)
        ids[0, 0] = 0
        label_map(base / "SegmentationClassContext" / f"{names[0]}.png", ids)
        lists = base / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    listed = names if published else names[:1]
    (lists / "train.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    return root


def mpii_json_tree(root: Path) -> Path:
    picture(root / "images" / "0001.jpg", (200, 300))
    record = {
        "image": "0001.jpg",
        "center": [151.0, 86.0],
        "scale": 1.0,
        "joints": [[101.0 + 5 * j, 51.0 + 5 * j] for j in range(16)],
        "joints_vis": [1] * 15 + [0],
    }
    for name in ("train.json", "valid.json"):
        (root / "annot").mkdir(exist_ok=True, parents=True)
        (root / "annot" / name).write_text(json.dumps([record]), encoding="utf-8")
    heads = np.zeros((2, 2, 1))
    heads[1, :, 0] = (30, 40)
    savemat(root / "annot" / "gt_valid.mat", {"headboxes_src": heads})
    return root


def mpii_published_tree(root: Path) -> Path:
    picture(root / "images" / "0001.jpg", (200, 300))
    points = np.array(
        [(101.0 + 5 * j, 51.0 + 5 * j, j) for j in range(15)],
        dtype=[("x", object), ("y", object), ("id", object)],
    )
    person = {
        "x1": 0.0,
        "y1": 0.0,
        "x2": 30.0,
        "y2": 40.0,
        "annopoints": {"point": points},
        "scale": 1.0,
        "objpos": {"x": 151.0, "y": 86.0},
    }
    kind = [("image", object), ("annorect", object)]
    annolist = np.array(
        [({"name": "0001.jpg"}, person), ({"name": "9999.jpg"}, {"x1": 1.0})], dtype=kind
    )
    release = {"annolist": annolist, "img_train": np.array([1, 0])}
    savemat(root / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    return root


CLASSES_TOML = """
classes = [
    {name = "ground", color = "#202020"},
    {name = "disc", color = "#e6194b"},
    {name = "square", color = "#3cb44b"},
]
ignore = 255
"""
JOINTS = ("top", "left", "right", "bottom")
JOINTS_TOML = """
joints = [
    {name = "top", color = "#ffff00"},
    {name = "left", color = "#00aaff"},
    {name = "right", color = "#ff5500"},
    {name = "bottom", color = "#ffffff"},
]
pairs = [["left", "right"]]
skeleton = [["top", "left"], ["top", "right"], ["left", "bottom"], ["right", "bottom"]]
torso = ["top", "bottom"]
"""


def shapes_tree(
    root: Path, images: int = 12, size: tuple[int, int] = (64, 96), *, in_color: bool = False
) -> Path:
    """One's own data: a bright disc and a square on dark ground, with label PNGs."""
    colors = np.array([(0x20, 0x20, 0x20), (0xE6, 0x19, 0x4B), (0x3C, 0xB4, 0x4B)], np.uint8)
    for folder in ("images", "labels"):
        (root / folder / "day").mkdir(parents=True)
    (root / "classes.toml").write_text(CLASSES_TOML, encoding="utf-8")
    rows, columns = np.mgrid[: size[0], : size[1]]
    for i in range(images):
        random = np.random.default_rng(i)
        ids = np.zeros(size, np.uint8)
        y, x = random.uniform(0.3, 0.7) * size[0], random.uniform(0.2, 0.35) * size[1]
        ids[(rows - y) ** 2 + (columns - x) ** 2 < (0.22 * size[0]) ** 2] = 1
        x = random.uniform(0.65, 0.8) * size[1]
        ids[(abs(rows - y) < 0.2 * size[0]) & (abs(columns - x) < 0.2 * size[0])] = 2
        noisy = colors[ids] + random.normal(0, 12, (*size, 3))
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        image.save(root / "images" / "day" / f"{i:03d}.png")
        labels = colors[ids] if in_color else ids
        Image.fromarray(labels).save(root / "labels" / "day" / f"{i:03d}.png")
    return root


def kites_tree(root: Path, images: int = 8) -> Path:
    """One's own data: two kites an image, of four joints each, in COCO's format."""
    (root / "images").mkdir(parents=True)
    (root / "classes.toml").write_text(JOINTS_TOML, encoding="utf-8")
    people = []
    for i in range(images):
        random = np.random.default_rng(i)
        image = Image.new("RGB", (160, 96), (40, 40, 40))
        for j, left in enumerate((10, 90)):
            x, y = left + random.uniform(25, 35), 48 + random.uniform(-6, 6)
            joints = [(x, y - 36), (x + 18, y - 8), (x - 18, y - 8), (x, y + 36)]
            ImageDraw.Draw(image).polygon([joints[k] for k in (0, 1, 3, 2)], (230, 180, 20))
            for k, (px, py) in enumerate(joints):
                spot = (px - 3, py - 3, px + 3, py + 3)
                ImageDraw.Draw(image).ellipse(spot, (60 * k, 255 - 60 * k, 200))
            people.append(
                {
                    "id": 2 * i + j,
                    "image_id": i,
                    "category_id": 1,
                    "keypoints": [v for point in joints for v in (*map(round, point), 2)],
                    "bbox": [x - 20, y - 38, 40, 76],
                }
            )
        image.save(root / "images" / f"{i:03d}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i:03d}.png"} for i in range(images)],
        "annotations": people,
        "categories": [{"id": 1, "name": "kite", "keypoints": list(JOINTS)}],
    }
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return root
