"""The command line, called as its users call it."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.cli.app import main
from model.factories import GOLDEN, published, random_pixels, save_tiny, tiny_network


@pytest.fixture
def anytime_model(monkeypatch, capsys):
    """Calls the command in this process, which saves importing torch a dozen times."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["anytime-model", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return SimpleNamespace(
            returncode=ended.value.code or 0, stdout=printed.out, stderr=printed.err
        )

    return call


def test_quantise_notes_ranges_that_int8_then_runs_with(anytime_model, tmp_path):
    card = save_tiny(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        Image.fromarray(random_pixels(64, 96, seed)).save(images / f"{seed}.png")
    weights = tmp_path / card.file
    early = anytime_model(
        "run", weights, images / "0.png", "--out", tmp_path, "--precision", "int8"
    )
    assert early.returncode == 2
    assert "anytime-model quantise" in early.stderr
    done = anytime_model("quantise", "--weights", weights, "--images", images, "--limit", 2)
    assert done.returncode == 0, done.stderr
    assert "from 2 images" in done.stdout
    ran = anytime_model("run", weights, images / "0.png", "--out", tmp_path, "--precision", "int8")
    assert ran.returncode == 0, ran.stderr
    none = anytime_model("quantise", "--weights", weights, "--images", tmp_path / "empty")
    assert none.returncode == 2
    assert "expected at least one" in none.stderr


@pytest.mark.slow
def test_the_command_is_installed():
    result = subprocess.run(
        [Path(sys.executable).with_name("anytime-model"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "agree" in result.stdout


def test_agree_passes_on_a_golden_file_and_fails_on_a_changed_one(anytime_model, tmp_path):
    good = anytime_model("agree", GOLDEN / "w18_ee.npz")
    assert good.returncode == 0, good.stderr
    assert good.stdout.count("yes") == 4
    with np.load(GOLDEN / "w18_ee.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["exit4"] = arrays["exit4"] * 1.001
    np.savez(tmp_path / "bad.npz", **arrays)
    bad = anytime_model("agree", tmp_path / "bad.npz")
    assert bad.returncode == 1
    assert "NO" in bad.stdout


@pytest.mark.slow
def test_flops_prints_the_papers_table_as_json(anytime_model):
    result = anytime_model(
        "flops", "--preset", "w32", "--task", "pose", "--size", "256x256", "--json"
    )
    report = json.loads(result.stdout)
    assert report["paper"][-1] == pytest.approx(9.55, abs=0.005)
    assert report["one_exit"] == pytest.approx(9.49, abs=0.005)


@pytest.mark.slow
def test_flops_prints_the_masked_row(anytime_model):
    result = anytime_model("flops", "--masked", "19.3,38.4,63.0", "--json")
    assert json.loads(result.stdout)["paper"] == pytest.approx((41.9, 93.9, 259.3, 387.1), abs=0.5)


@pytest.mark.slow
def test_flops_counts_networks_of_other_families(anytime_model):
    result = anytime_model("flops", "--family", "mdeq", "--preset", "small", "--json")
    counts = (227.2, 354.6, 481.9, 609.3)
    assert json.loads(result.stdout)["paper"] == pytest.approx(counts, abs=0.05)


def test_a_published_checkpoint_is_converted_and_run(anytime_model, tmp_path):
    network = tiny_network()
    torch.save(published(network), tmp_path / "authors.pth")
    out = tmp_path / "ours" / "street.safetensors"
    result = anytime_model(
        "convert", tmp_path / "authors.pth", "--preset", "tiny", "--outputs", 5, "--out", out
    )
    assert result.returncode == 0, result.stderr
    assert "ADP-C" in result.stdout
    assert load_checkpoint(out).card.name == "street"
    Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    result = anytime_model("run", out, tmp_path / "a.png", "--out", tmp_path / "maps")
    assert result.returncode == 0, result.stderr
    for k in (1, 2, 3, 4):
        with Image.open(tmp_path / "maps" / f"a.exit{k}.png") as picture:
            assert picture.size == (80, 48)
    with Image.open(tmp_path / "maps" / "a.exits.png") as sheet:
        assert sheet.size == (320, 48)


def test_a_converted_checkpoint_has_the_masks_that_were_asked_for_or_says_how_to_get_some(
    anytime_model, tmp_path
):
    torch.save(published(tiny_network()), tmp_path / "authors.pth")
    out = tmp_path / "street.safetensors"
    command = ("convert", tmp_path / "authors.pth", "--preset", "tiny", "--outputs", 5)
    plain = anytime_model(*command, "--out", out)
    assert load_checkpoint(out).card.masking is None
    assert "has no masks" in plain.stdout
    assert f"anytime-model calibrate --weights {out} --data FOLDER --record" in plain.stdout
    masked = anytime_model(*command, "--out", out, "--threshold", "0.998")
    assert masked.returncode == 0, masked.stderr
    assert "no masks" not in masked.stdout
    assert load_checkpoint(out).card.masking.thresholds == (0.998,) * 3
    refused = anytime_model(*command, "--out", out, "--threshold", "1.5")
    assert refused.returncode == 2
    assert "threshold" in refused.stderr


def test_a_device_that_is_not_there_is_one_line_that_says_what_would_do(anytime_model, tmp_path):
    weights = tmp_path / save_tiny(tmp_path).file
    Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    done = anytime_model(
        "run", weights, tmp_path / "a.png", "--out", tmp_path, "--device", "cuda:99"
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the device 'cuda:99' cannot be used here" in done.stderr
    assert "such as cpu" in done.stderr


def test_pose_overlays_draw_joints(anytime_model, tmp_path):
    card = save_tiny(tmp_path, "pose")
    Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    result = anytime_model(
        "run", tmp_path / card.file, tmp_path / "a.png", "--out", tmp_path / "maps"
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "maps" / "a.exit4.png") as picture:
        assert not np.array_equal(np.asarray(picture), random_pixels())


def test_drawing_the_exits_before_is_no_part_of_an_exits_time(anytime_model, tmp_path, monkeypatch):
    card = save_tiny(tmp_path)
    Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    module = import_module("anytime_model.cli.run")
    clock = SimpleNamespace(s=0.0)
    draw = module.overlay

    def slow_overlay(*arguments):
        clock.s += 1000.0
        return draw(*arguments)

    monkeypatch.setattr(module, "overlay", slow_overlay)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.s))
    result = anytime_model(
        "run", tmp_path / card.file, tmp_path / "a.png", "--out", tmp_path / "maps"
    )
    assert result.returncode == 0, result.stderr
    assert clock.s == 4000.0
    assert re.findall(r"a\.png\s+│ (\d)\s+│ (\d+) ", result.stdout) == [
        (exit_, "0") for exit_ in "1234"
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("flops", "--size", "big"), "--size is 'big'"),
        (("flops", "--preset", "w19"), "'w19'"),
        (("flops", "--family", "vit"), "'mdeq'"),
        (("flops", "--masked", "1,2,300"), "--masked"),
        (("agree", "none.npz"), "no such file"),
        (("run", "none.safetensors", "a.png", "--out", "x"), "no such manifest"),
        (("convert", "none.pth", "--preset", "w18", "--out", "x.safetensors"), "no such file"),
        (("convert", "none.pth", "--preset", "w18", "--out", "x.pth"), ".safetensors"),
    ],
)
def test_a_mistake_ends_in_one_message_and_no_traceback(
    anytime_model, tmp_path, arguments, complaint
):
    result = anytime_model(*arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_run_takes_the_engine_that_serves_unless_one_is_named(anytime_model, tmp_path, monkeypatch):
    card = save_tiny(tmp_path)
    Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    arguments = ("run", tmp_path / card.file, tmp_path / "a.png", "--out", tmp_path / "maps")
    monkeypatch.setenv("ANYTIME_ENGINE", "abacus")
    refused = anytime_model(*arguments)
    assert refused.returncode == 2
    assert "abacus" in refused.stderr
    assert anytime_model(*arguments, "--engine", "torch").returncode == 0
