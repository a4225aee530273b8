"""A manifest's entries: round trips, and every way to be wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from anytime_model.checkpoint.card import Certificate, Quality, Quantisation, RungPath, is_path
from anytime_model.checkpoint.manifest import MANIFEST, read_manifest, write_card
from anytime_model.checkpoint.store import load_model, save_checkpoint
from anytime_model.errors import CheckpointError, ConfigError
from anytime_model.labels import Label
from anytime_model.networks.lite import LiteConfig
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
        ("mean = [0.485, 0.456, 0.406]", "mean = [nan, 0.456, 0.406]", "mean.*finite"),
        ("mean = [0.485, 0.456, 0.406]", "mean = [true, 0.456, 0.406]", "expected 3"),
        ("std = [0.229, 0.224, 0.225]", "std = [0, 0.224, 0.225]", "std.*above 0"),
        ("std = [0.229, 0.224, 0.225]", "std = [inf, 0.224, 0.225]", "std.*finite"),
        ("std = [0.229, 0.224, 0.225]", "std = [0.229, -1.0, 0.225]", "std.*above 0"),
        ("thresholds = [0.6, 0.6, 0.6]", "thresholds = [0.6, nan, 0.6]", "thresholds.*finite"),
        ("[tiny]", '["../../etc"]', "letters, digits"),
        ("[tiny]", '[".hidden"]', "letters, digits"),
        ("[tiny]", f'["{"x" * 129}"]', "at most 128"),
        ("head_width = 8", "head_width = 10000000", "head_width.*4096"),
        ("head_width = 8", "head_width = 8.5", "head_width.*whole"),
        ("head_width = 8", 'head_width = "8"', "head_width.*whole"),
        ("depths = [3, 2, 1]", "depths = [3, 2.5, 1]", "depths.*whole"),
        ('color = "#0080ff"', "color = 7", "colour 7"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(tmp_path, old, new, complaint):
    card = save_tiny(tmp_path)
    edit(tmp_path, old, new)
    with pytest.raises(CheckpointError, match=complaint):
        load_model(read_manifest(tmp_path)["tiny"], tmp_path)
    assert card.file


def test_a_card_with_path_parts_in_its_name_is_not_written(tmp_path):
    with pytest.raises(ConfigError, match="letters, digits"):
        replace(tiny_card(), name="../tiny")


@pytest.mark.parametrize(
    ("quality", "complaint"),
    [
        (Quality("mIoU", (0.1, 0.2, 0.3, 1.5), "made up"), "per_exit.*0 to 1"),
        (Quality("mIoU", (0.1, 0.2, 0.3, float("nan")), "made up"), "per_exit.*finite"),
        (Quality("mIoU", (0.1, 0.2, 0.3, 0.4), "made up", scale=1e9), "scale.*at most 16"),
    ],
)
def test_a_quality_that_makes_no_sense_is_refused(tmp_path, quality, complaint):
    write_card(tmp_path, replace(tiny_card(), quality=quality))
    with pytest.raises(CheckpointError, match=complaint):
        read_manifest(tmp_path)


@pytest.mark.parametrize("bone", [(0, 5), (0, -1), (0, 1, 2), (0.0, 1)])
def test_a_bone_between_joints_that_are_not_there_is_refused(tmp_path, bone):
    write_card(tmp_path, replace(tiny_card("pose"), skeleton=(bone,)))
    with pytest.raises(CheckpointError, match=r"skeleton.*two joints below 5"):
        read_manifest(tmp_path)


def test_a_map_of_bytes_has_at_most_256_classes(tmp_path):
    labels = tuple(Label(f"{n}", "#000000") for n in range(257))
    write_card(tmp_path, replace(tiny_card(outputs=257), labels=labels))
    with pytest.raises(CheckpointError, match=r"257 labels.*256"):
        read_manifest(tmp_path)


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


def test_ranges_for_int8_and_their_quality_survive_the_manifest(tmp_path):
    card = tiny_card()
    quality = Quality("mIoU", (0.1, 0.2, 0.3, 0.4), "made up", precision="int8")
    int8 = Quantisation(((-1.5, 2.0), (0.0, 7.25)), "mse", 16, card.sha256, floats=("exit 4",))
    card = replace(card, int8=int8).with_quality(quality)
    write_card(tmp_path, card)
    assert read_manifest(tmp_path)["tiny"] == card
    assert (card.quality, card.quality_in("int8")) == (None, quality)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[-1.5, 2.0]]", "[[1.5, 2.0]]", "at most 0 to at least 0"),
        ("[[-1.5, 2.0]]", "[[-1.5]]", "expected 2 finite numbers"),
        ("images = 16", "n = 16", "images"),
    ],
)
def test_ranges_that_are_none_are_refused(tmp_path, old, new, message):
    card = tiny_card()
    write_card(tmp_path, replace(card, int8=Quantisation(((-1.5, 2.0),), "mse", 16, card.sha256)))
    edit(tmp_path, old, new)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


def test_ranges_of_other_weights_are_refused_and_forgotten_with_the_weights(tmp_path):
    card = replace(tiny_card(), int8=Quantisation(((-1.5, 2.0),), "mse", 16, "f" * 64))
    write_card(tmp_path, card)
    with pytest.raises(CheckpointError, match="of the weights ffffffffffff"):
        read_manifest(tmp_path)
    assert save_checkpoint(tiny_network(), card, tmp_path / "again").int8 is None


def test_a_ladder_survives_the_manifest(tmp_path):
    scores = tuple(k / 10 for k in range(1, 9))
    paths = (RungPath(tuple(range(1, 9)), scores), RungPath((1, 5, 6), (0.1, 0.2, 0.35)))
    ladder = replace(
        tiny_card(),
        sides=(64, 128),
        joining=(0.5, 0.25, 0.0, 1.0),
        quality=Quality("mIoU", scores, "made up", precision="bf16", paths=paths),
    )
    write_card(tmp_path, ladder)
    assert read_manifest(tmp_path)["tiny"] == ladder
    assert ladder.num_rungs == 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ladder = [7]", "expected at most 8 rising sides"),
        ("ladder = [128, 64]", "expected at most 8 rising sides"),
        ('ladder = "large"', "expected at most 8 rising sides"),
        ("input_side = 128", r"write ladder = \[128\]"),
        ("joining = [0.5]", "expected 4 finite numbers"),
        ("joining = [0.5, 2, 0, 0]", "expected numbers from 0 to 1"),
    ],
)
def test_a_senseless_ladder_is_refused_with_the_cure(tmp_path, line, message):
    write_card(tmp_path, tiny_card())
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace("[tiny]\n", f"[tiny]\n{line}\n", 1))
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("rungs", "leads"),
    [
        ((1, 2, 3, 4, 5, 6, 7, 8), True),
        ((1, 5, 6), True),
        ((1, 2, 5, 9, 10), True),
        ((1,), True),
        ((), False),
        ((2, 3), False),
        ((1, 3), False),
        ((1, 6), False),
        ((1, 5, 5), False),
        ((1, 2, 13), False),
    ],
)
def test_a_path_goes_to_the_next_rung_or_to_the_first_of_a_larger_size(rungs, leads):
    assert is_path(rungs, tiny_card().config, num_sides=3) is leads


@pytest.mark.parametrize(
    ("rungs", "leads"),
    [((1, 3), True), ((1, 12), True), ((1, 6, 8), True), ((2, 3), False), ((1, 13), False)],
)
def test_where_exits_may_be_left_out_a_path_goes_to_any_later_rung(rungs, leads):
    assert is_path(rungs, LiteConfig("tiny", 5), num_sides=3) is leads


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


def certified(folder, *risks):
    card = save_tiny(folder)
    certificates = tuple(
        Certificate(
            risk=risk,
            confidence=0.95,
            criterion="max_probability",
            thresholds=(0.99, 0.98, 0.95),
            images=400,
            measured=0.004,
            largest_loss=0.25,
            dataset="made up",
            precision="bf16",
            sides=(),
            joining=card.joining,
            paths=((1, 2, 3, 4),),
            sha256=card.sha256,
        )
        for risk in risks
    )
    card = replace(card, certificates=certificates)
    write_card(folder, card)
    return card


def test_certificates_survive_the_manifest(tmp_path):
    card = certified(tmp_path, 0.01, 0.05)
    assert read_manifest(tmp_path)["tiny"] == card
    assert "[[tiny.certificates]]" in (tmp_path / MANIFEST).read_text()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('dataset = "made up"\n', "", "no 'dataset'"),
        ("risk = 0.01", "risk = 0", "above 0"),
        ("risk = 0.01", "risk = 0.05", "rising"),
        ("ladder = []", "ladder = [64]", "of other ladder.*calibrate"),
        ("joining = [0.5, 0.5, 0.5, 0.5]", "joining = [0.5, 0.5, 0.5, 1.0]", "of other joining"),
        (
            'criterion = "max_probability"\nthresholds = [0.99',
            'criterion = "luck"\nthresholds = [0.99',
            "'luck'",
        ),
        ("[0.99, 0.98, 0.95]", "[0.99, 0.98]", "expected 3"),
    ],
)
def test_a_wrong_certificate_is_refused(tmp_path, old, new, complaint):
    certified(tmp_path, 0.01, 0.05)
    edit(tmp_path, old, new)
    with pytest.raises(CheckpointError, match=complaint):
        read_manifest(tmp_path)


def test_a_certificate_is_refused_where_a_measured_path_was_not_calibrated(tmp_path):
    card = certified(tmp_path, 0.05)
    (certificate,) = card.certificates
    certificates = (replace(certificate, sides=(64,)),)
    card = replace(card, sides=(64,), certificates=certificates)
    for rungs in ((1, 2), (1, 2, 3, 4)):
        paths = (RungPath(rungs, (0.1,) * len(rungs)),)
        quality = Quality("mIoU", (0.1,) * 4, "made up", paths=paths)
        write_card(tmp_path, replace(card, quality=quality))
        assert read_manifest(tmp_path)["tiny"].certificates == card.certificates
    edit(tmp_path, "paths = [[1, 2, 3, 4]]", "paths = [[1, 2, 4]]")
    with pytest.raises(CheckpointError, match=r"path \[1, 2, 3, 4\] was not calibrated.*calibrate"):
        read_manifest(tmp_path)


def test_a_certificate_of_other_weights_is_refused(tmp_path):
    card = certified(tmp_path, 0.05)
    path = tmp_path / MANIFEST
    before, after = path.read_text().rsplit(card.sha256, 1)
    path.write_text(f"{before}{'0' * 64}{after}")
    with pytest.raises(CheckpointError, match=r"of other weights: it says 0{12}.*calibrate"):
        read_manifest(tmp_path)


def test_new_weights_take_no_certificate_of_the_old_ones(tmp_path):
    card = certified(tmp_path, 0.05)
    assert save_checkpoint(tiny_network(), card, tmp_path).certificates == card.certificates
    assert save_checkpoint(tiny_network(seed=1), card, tmp_path).certificates == ()
    assert read_manifest(tmp_path)["tiny"].certificates == ()
