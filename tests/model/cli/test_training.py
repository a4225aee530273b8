"""From a data set to shipped weights and their measurement, by the commands a user types."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.training.recipes import RECIPES
from model.commands import command_of
from model.data_factories import camvid_tree, tiny_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(name="command")
def _command(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setitem(RECIPES, "camvid-w18", tiny_recipe(check_split="holdout"))
    return command_of(monkeypatch)


def test_train_finish_and_evaluate_make_weights_with_a_measured_card(
    tmp_path: Path,
    command: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(command)
    data, out = camvid_tree(tmp_path / "camvid"), tmp_path / "out"
    shipped = out / "weights"
    at = ("--data", data)
    training = ("train", "--recipe", "camvid-w18", *at, "--out", out, "--workers", 0)
    assert command(*training, "--device", "cpu") == 0
    assert command(*training) == 2
    assert "holds a training already" in capsys.readouterr().err
    assert command(*training, "--resume") == 0
    (finish,) = re.findall(r"^next: anytime-model (.*)$", capsys.readouterr().out, re.MULTILINE)
    finish = shlex.split(finish.replace("NAME", "tiny"))
    described = ("--licence", "research", "--curves", tmp_path / "curves.png")
    assert command(*finish, *described) == 0
    assert (tmp_path / "curves.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "thresholds on held-out data" in printed
    assert f"next: anytime-server serve --weights {shipped}" in printed
    card = read_manifest(shipped)["tiny"]
    assert (card.licence, card.description) == ("research", "Trained on camvid.")
    assert card.config.preset == "tiny"

    evaluate = ("evaluate", "--weights", shipped / card.file, *at, "--limit", 2)
    saved = tmp_path / "dense.json"
    assert command(*evaluate, "--no-masks", "--save", saved, "--record") == 0
    assert "GMACs" in capsys.readouterr().out
    plot, sheet = tmp_path / "plot.png", tmp_path / "sheet.png"
    figures = ("--plot", plot, "--compare", saved, "--sheet", sheet)
    assert command(*evaluate, "--json", "--threshold", 0.5, *figures) == 0
    masked = json.loads(capsys.readouterr().out)
    dense = json.loads(saved.read_text(encoding="utf-8"))
    assert masked["criterion"] == "max_probability"
    assert dense["criterion"] is None
    assert masked["exits"][3]["macs"] <= dense["exits"][3]["macs"]
    assert plot.stat().st_size > 1000
    assert sheet.stat().st_size > 1000
    quality = read_manifest(shipped)["tiny"].quality
    assert quality is not None
    assert quality.per_exit == tuple(round(e["score"], 4) for e in dense["exits"])


def test_a_wrong_recipe_or_folder_ends_with_a_message(
    tmp_path: Path, command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(command)
    nowhere = ("--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert command("train", "--recipe", "nonsense", *nowhere) == 2
    assert "expected one of" in capsys.readouterr().err
    assert command("train", "--recipe", "camvid-w18", *nowhere) == 2
    assert "no such folder" in capsys.readouterr().err
