"""From a folder of one's own to a served model, by the commands of docs/TRAINING.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.select import make_engine
from anytime_model.results import Keypoints, SegmentationMap
from anytime_protocol.model_info import ModelInfo
from anytime_server.executor import loading
from anytime_server.executor.messages import WorkerSettings
from model.commands import Command, command_of
from model.data_factories import JOINTS, kites_tree, label_map, shapes_tree

pytestmark = pytest.mark.slow


@pytest.fixture(name="command")
def _command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_of(monkeypatch)


def train_and_finish(
    command: Command, recipe: str, data: Path, folder: Path, *options: object
) -> Path:
    """A few steps, then weights in a folder of their own."""
    run, shipped = folder / "run", folder / "weights"
    of = ("--recipe", recipe, "--data", data)
    quickly = ("--device", "cpu", "--workers", 0, "--batch", 4)
    assert command("train", *of, "--out", run, *quickly, *options) == 0
    progress = ("--progress", run / "progress.pt")
    assert command("finish", *of, *progress, "--out", shipped, "--name", "mine") == 0
    return shipped


def described(weights: Path) -> ModelInfo:
    """What a server tells of the model."""
    settings = WorkerSettings(weights, (), "torch", "cpu", 0, (64, 96))
    model = loading.load(settings, MemoryBudget(2**28))["mine"]
    return loading.profile(model, settings.profile_size).info


def test_a_folder_of_labelled_images_becomes_a_served_model_that_sharpens(
    tmp_path: Path, command: Command
) -> None:
    data = shapes_tree(tmp_path / "shapes")
    weights = train_and_finish(command, "finetune-lite", data, tmp_path, "--steps", 30)
    engine = make_engine(load_checkpoint(weights / "mine.safetensors"), "torch")
    assert engine.sides == (48, 96)
    path = data / "images" / "day" / "000.png"
    run = engine.begin(np.asarray(Image.open(path)))
    found = [engine.decode(run.advance()) for _ in range(8)]
    truth = np.asarray(Image.open(data / "labels" / "day" / "000.png"))
    right = []
    for map_ in found:
        assert isinstance(map_, SegmentationMap)
        right.append((map_.labels == truth).mean())
    assert max(right[4:]) > 0.8

    info = described(weights)
    assert [c.name for c in info.classes] == ["ground", "disc", "square"]
    assert info.classes[1].color == (0xE6, 0x19, 0x4B)
    assert [e.side for e in info.exits] == [48] * 4 + [96] * 4

    at = ("--weights", weights / "mine.safetensors", "--data", data, "--split", "val")
    assert command("evaluate", "--ladder", *at, "--engine", "torch", "--record") == 0
    quality = read_manifest(weights)["mine"].quality
    assert quality is not None
    assert quality.dataset == "own data val"
    assert len(quality.per_exit) == 8


def test_a_folder_of_coco_keypoints_becomes_a_served_model(
    tmp_path: Path, command: Command
) -> None:
    data = kites_tree(tmp_path / "kites")
    with (data / "classes.toml").open("a", encoding="utf-8") as file:
        file.write("side = 64\n")
    weights = train_and_finish(command, "finetune-lite", data, tmp_path, "--steps", 4)
    engine = make_engine(load_checkpoint(weights / "mine.safetensors"), "torch")
    decoded = engine.decode(engine.begin(np.zeros((90, 60, 3), np.uint8)).advance())
    assert isinstance(decoded, Keypoints)
    assert decoded.points.shape == (4, 3)
    info = described(weights)
    assert info.keypoints == JOINTS
    assert info.skeleton == ((0, 1), (0, 2), (1, 3), (2, 3))


def test_w18_starts_from_a_shipped_file(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[2] / "weights" / "camvid-w18.safetensors"
    data = shapes_tree(tmp_path / "shapes", in_color=True)
    of = ("train", "--recipe", "finetune-w18", "--data", data, "--out", tmp_path / "other")
    assert command(*of, "--workers", 0) == 2
    assert "give weights of ours with --init" in capsys.readouterr().err
    options = ("--steps", 2, "--init", shipped)
    weights = train_and_finish(command, "finetune-w18", data, tmp_path, *options)
    assert len(described(weights).exits) == 8


def test_all_faults_are_told_before_a_training_begins(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shapes_tree(tmp_path / "shapes")
    for i in range(3):
        label_map(data / "labels" / "day" / f"{i:03d}.png", np.full((64, 96), 8))
    assert command("train", "--recipe", "finetune-lite", "--data", data, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert "has 3 faults" in error
    assert error.count("has the label 8 at row 0, column 0; expected 0 to 2") == 3
    assert not (tmp_path / "progress.pt").exists()
