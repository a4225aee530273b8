"""A manifest's entries: round trips, and every way to be wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from anytime_model.checkpoint.card import Quality
from anytime_model.checkpoint.manifest import read_manifest, write_card
from anytime_model.checkpoint.store import load_model, save_checkpoint
from anytime_model.errors import CheckpointError
from model.factories import save_tiny, tiny_card, tiny_network

ROOT = Path(__file__).parents[3]


def edit(folder, old, new):
    path = folder / "manifest.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


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
        ('family = "hrnet"', 'family = "mystery"', "'mystery'.*'hrnet'"),
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


def test_writing_a_card_again_replaces_it(tmp_path):
    write_card(tmp_path, tiny_card())
    write_card(tmp_path, replace(tiny_card(), licence="another"))
    assert read_manifest(tmp_path)["tiny"].licence == "another"


def test_a_side_survives_the_manifest_and_a_senseless_one_is_refused(tmp_path):
    write_card(tmp_path, replace(tiny_card("pose"), input_side=128))
    (card,) = read_manifest(tmp_path).values()
    assert card.input_side == 128
    path = tmp_path / "manifest.toml"
    path.write_text(path.read_text().replace("input_side = 128", "input_side = 7"))
    with pytest.raises(CheckpointError, match="expected 32 to 4096 px"):
        read_manifest(tmp_path)


def test_a_manifest_without_a_family_is_of_an_hrnet(tmp_path):
    save_tiny(tmp_path)
    edit(tmp_path, 'family = "hrnet"\n', "")
    card = read_manifest(tmp_path)["tiny"]
    assert card.config == tiny_card().config
    assert card.config.family == "hrnet"


def test_the_shipped_manifest_loads():
    cards = read_manifest(ROOT / "weights")
    assert {card.config.num_exits for card in cards.values()} == {4}
    assert all(len(card.criteria()) == 4 for card in cards.values())
