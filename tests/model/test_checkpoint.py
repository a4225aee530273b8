"""Our own weights files and their manifest: round trips, and every way to be wrong."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from anytime_model.checkpoint import load_checkpoint, load_model, save_checkpoint
from anytime_model.confidence import MaximumProbability
from anytime_model.errors import CheckpointError
from anytime_model.manifest import Quality, read_manifest, write_card
from model.model_fakes import random_image, save_tiny, tiny_card, tiny_network


def edit(folder, old, new):
    path = folder / "manifest.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_network_comes_back_as_it_was_saved(tmp_path, task):
    network = tiny_network(task)
    card = save_checkpoint(network, tiny_card(task), tmp_path)
    loaded = load_checkpoint(tmp_path / card.file)
    assert loaded.card == card
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded.network.state_dict()[name], tensor.half().float()), name
    assert not loaded.network.training
    assert loaded.network(random_image())[-1].logits.isfinite().all()


def test_a_file_holds_half_precision_only(tmp_path):
    card = save_tiny(tmp_path)
    size = (tmp_path / card.file).stat().st_size
    numbers = sum(t.numel() for t in tiny_network().state_dict().values())
    assert size < 2 * numbers + 100_000


def test_a_card_says_how_the_model_is_to_be_run(tmp_path):
    save_tiny(tmp_path)
    card = read_manifest(tmp_path)["tiny"]
    assert card.criteria() == (*[MaximumProbability(0.6)] * 3, None)
    assert card.task.name == "segmentation"


def test_a_card_without_masking_masks_nothing():
    assert replace(tiny_card(), masking=None).criteria() == (None,) * 4


def test_quality_and_skeleton_survive_the_manifest(tmp_path):
    quality = Quality("PCKh@0.5", (0.1, 0.2, 0.3, 0.4), "made up", scale=1.5)
    card = replace(tiny_card("pose"), quality=quality)
    save_checkpoint(tiny_network("pose"), card, tmp_path)
    read = read_manifest(tmp_path)["tiny"]
    assert read.quality == quality
    assert read.skeleton == ((0, 1), (1, 2))


def test_other_models_and_comments_of_a_manifest_survive_a_save(tmp_path):
    save_tiny(tmp_path, name="one")
    edit(tmp_path, "[one]", "# chosen with care\n[one]")
    save_tiny(tmp_path, task="pose", name="two")
    assert "# chosen with care" in (tmp_path / "manifest.toml").read_text()
    assert set(read_manifest(tmp_path)) == {"one", "two"}


def test_a_truncated_file_is_told_by_its_digest(tmp_path):
    path = tmp_path / save_tiny(tmp_path).file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"SHA-256.*truncated or has been changed") as e:
        load_checkpoint(path)
    assert e.value.path == path


def test_a_file_without_entry_is_refused(tmp_path):
    path = tmp_path / save_tiny(tmp_path).file
    other = path.rename(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no entry"):
        load_checkpoint(other)


def test_a_missing_file_is_refused(tmp_path):
    card = save_tiny(tmp_path)
    (tmp_path / card.file).unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / card.file)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    card = save_tiny(tmp_path)
    (tmp_path / card.file).write_bytes(b"no tensors")
    card = replace(card, sha256=hashlib.sha256(b"no tensors").hexdigest())
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(card, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('preset = "tiny"', 'preset = "w18"', r"exits\.0.*and \d+ more"),
        ('preset = "tiny"', 'preset = "w19"', "'w19'"),
        ('preset = "tiny"\n', "", "no 'preset'"),
        ('exits = "redesigned"', 'exits = "original"', "does not fit"),
        ('color = "#0080ff"', 'color = "blue"', "blue"),
        ('criterion = "max_probability"', 'criterion = "luck"', "'luck'"),
        ("thresholds = [0.6, 0.6, 0.6]", "thresholds = [0.6, 0.6]", "expected 3"),
        ('file = "tiny.safetensors"', 'file = "../tiny.safetensors"', "beside it"),
        ("[tiny]", "[tiny", "not TOML"),
        ("mean = [0.485, 0.456, 0.406]", 'mean = "grey"', "expected 3"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(tmp_path, old, new, complaint):
    card = save_tiny(tmp_path)
    edit(tmp_path, old, new)
    with pytest.raises(CheckpointError, match=complaint):
        load_model(read_manifest(tmp_path)["tiny"], tmp_path)
    assert card.file


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such manifest"):
        read_manifest(tmp_path)


def test_a_table_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "manifest.toml").write_text("tiny = 3\n")
    with pytest.raises(CheckpointError, match="'tiny' is not a table"):
        read_manifest(tmp_path)


def test_a_card_of_another_network_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="Make them equal"):
        save_checkpoint(tiny_network(), tiny_card(exits="original"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e6])
def test_a_diverged_network_is_not_saved(tmp_path, value):
    network = tiny_network()
    network.exits[0].predict.bias.fill_(value)
    with pytest.raises(CheckpointError, match="diverged"):
        save_checkpoint(network, tiny_card(), tmp_path)


def test_writing_a_card_again_replaces_it(tmp_path):
    write_card(tmp_path, tiny_card())
    write_card(tmp_path, replace(tiny_card(), licence="another"))
    assert read_manifest(tmp_path)["tiny"].licence == "another"
