"""One's own data: a folder that `classes.toml` describes, and what can be wrong in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_model.data.folder import check, open_folder, open_splits
from anytime_model.data.lspet import HEAD_OVER_EXTENT
from anytime_model.data.registry import OWN, recognise
from anytime_model.data.sample import IGNORE, SampleSource
from anytime_model.errors import DataError
from model.data_factories import JOINTS, kites_tree, label_map, picture, shapes_tree

Edit = Callable[[Path], object]


def names(source: SampleSource) -> list[str]:
    return [source[i].name for i in range(len(source))]


def rewrite(file: str, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new), encoding="utf-8")

    return edit


def annotate(change: Callable[[dict], object]) -> Edit:
    def edit(root: Path) -> None:
        content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
        change(content)
        (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")

    return edit


def all_faults(root: Path) -> None:
    check(root, open_splits(root))


def test_both_kinds_of_folder_are_recognised_although_they_look_like_published_sets(
    tmp_path: Path,
) -> None:
    assert recognise(shapes_tree(tmp_path / "shapes")) == OWN
    assert recognise(kites_tree(tmp_path / "kites")) == OWN


def test_images_and_labels_are_read_with_the_classes_of_the_description(tmp_path: Path) -> None:
    source = open_folder(shapes_tree(tmp_path), "train")
    assert source.task == "segmentation"
    assert [label.name for label in source.outputs] == ["ground", "disc", "square"]
    sample = source[0]
    assert sample.image.shape == (64, 96, 3)
    assert sample.labels is not None
    assert set(np.unique(sample.labels)) == {0, 1, 2}
    assert sample.image[sample.labels == 1, 0].mean() > 180


def test_labels_in_colours_are_those_in_numbers(tmp_path: Path) -> None:
    numbers = open_folder(shapes_tree(tmp_path / "numbers"), "train")
    colors = open_folder(shapes_tree(tmp_path / "colors", in_color=True), "train")
    for i in range(len(numbers)):
        assert np.array_equal(numbers[i].labels, colors[i].labels)


@pytest.mark.parametrize(("in_color", "ignore"), [(False, "7"), (True, '"#FFFFFF"')])
def test_pixels_may_be_ignored_by_a_label_or_a_colour(
    tmp_path: Path, in_color: bool, ignore: str
) -> None:
    root = shapes_tree(tmp_path, in_color=in_color)
    rewrite("classes.toml", "ignore = 255", f"ignore = {ignore}")(root)
    path = root / "labels" / "day" / "000.png"
    labels = np.array(Image.open(path))
    labels[0, 0] = 255 if in_color else 7
    label_map(path, labels)
    found = {s.name: s.labels for split in open_splits(root) for s in map(split.__getitem__, [0])}
    (root / "train.txt").write_text("day/000\n", encoding="utf-8")
    found["day/000"] = open_folder(root, "train")[0].labels
    assert found["day/000"][0, 0] == IGNORE


def test_larger_images_are_brought_to_the_side_with_their_labels(tmp_path: Path) -> None:
    root = shapes_tree(tmp_path / "large", images=3, size=(640, 960))
    source = open_folder(root, "train")
    sample = source[0]
    assert sample.image.shape == (341, 512, 3)
    assert sample.labels is not None
    assert sample.labels.shape == (341, 512)
    assert sample.image[sample.labels == 2, 1].mean() > 150
    (root / "classes.toml").write_text(
        "side = 96\n" + (root / "classes.toml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    assert open_folder(root, "val")[0].image.shape == (64, 96, 3)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    root = shapes_tree(tmp_path, images=2)
    path = root / "images" / "day" / "000.png"
    upright = np.asarray(Image.open(path))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    for split in ("train", "val"):
        for i in range(len(open_folder(root, split))):
            sample = open_folder(root, split)[i]
            if sample.name == "day/000":
                assert np.array_equal(sample.image, upright)
                return
    pytest.fail("day/000 is in no split")


def test_without_lists_a_share_is_held_out_that_depends_on_the_names_alone(tmp_path: Path) -> None:
    root = shapes_tree(tmp_path, images=20)
    train, val = (names(open_folder(root, split)) for split in ("train", "val"))
    assert len(val) == 3
    assert sorted(train + val) == [f"day/{i:03d}" for i in range(20)]
    assert names(open_folder(root, "val")) == val


def test_lists_say_which_images_make_up_a_split_and_the_rest_is_the_other(tmp_path: Path) -> None:
    root = shapes_tree(tmp_path, images=6)
    (root / "val.txt").write_text("day/001.png\nday/004\n", encoding="utf-8")
    (root / "test.txt").write_text("day/000\n", encoding="utf-8")
    assert names(open_folder(root, "val")) == ["day/001", "day/004"]
    assert names(open_folder(root, "test")) == ["day/000"]
    assert names(open_folder(root, "train")) == ["day/002", "day/003", "day/005"]
    assert len(open_splits(root)) == 3


def test_each_person_is_a_square_crop_with_joints_in_its_own_px(tmp_path: Path) -> None:
    source = open_folder(kites_tree(tmp_path), "train")
    assert source.task == "pose"
    assert tuple(label.name for label in source.outputs) == JOINTS
    assert source.skeleton is not None
    assert source.skeleton.flip == (0, 2, 1, 3)
    assert source.skeleton.torso == (0, 3)
    sample = source[1]
    assert sample.image.shape == (128, 128, 3)
    assert sample.joints is not None
    assert (sample.joints[:, 2] == 1).all()
    for k, (x, y, _) in enumerate(sample.joints.round().astype(int)):
        spot = sample.image[y, x].astype(int)
        assert abs(spot - (60 * k, 255 - 60 * k, 200)).max() < 30
    assert sample.head_px == pytest.approx(HEAD_OVER_EXTENT * 76 * 128 / 99)


def test_a_head_that_is_named_is_the_unit(tmp_path: Path) -> None:
    root = kites_tree(tmp_path)
    rewrite("classes.toml", "torso", 'head = ["left", "right"]\ntorso')(root)
    sample = open_folder(root, "val")[0]
    assert sample.joints is not None
    distance = np.linalg.norm(sample.joints[1, :2] - sample.joints[2, :2])
    assert sample.head_px == pytest.approx(distance)


def test_joints_come_in_the_order_of_the_description_and_unseen_ones_do_not_count(
    tmp_path: Path,
) -> None:
    root = kites_tree(tmp_path)
    before = open_folder(root, "train")[0].joints
    order = [3, 2, 1, 0]

    def turn(content: dict) -> None:
        content["categories"][0]["keypoints"] = [JOINTS[k] for k in order]
        for person in content["annotations"]:
            points = np.reshape(person["keypoints"], (4, 3))
            points[1, 2] = 0
            person["keypoints"] = points[order].flatten().tolist()

    annotate(turn)(root)
    after = open_folder(root, "train")[0].joints
    assert before is not None
    assert after is not None
    assert np.array_equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert not after[1].any()


def test_people_without_a_visible_joint_and_crowds_are_left_out(tmp_path: Path) -> None:
    root = kites_tree(tmp_path)
    count = sum(map(len, open_splits(root)))

    def hide(content: dict) -> None:
        content["annotations"][6]["keypoints"] = [0] * 12
        content["annotations"][9]["iscrowd"] = 1

    annotate(hide)(root)
    assert sum(map(len, open_splits(root))) == count - 2


CLASS_FAULTS: dict[str, tuple[Edit, str]] = {
    "not TOML": (rewrite("classes.toml", "[", "{{"), r"classes.toml: is not TOML \(.*line 2"),
    "unknown key": (
        rewrite("classes.toml", "ignore", "ignored"),
        "unknown key 'ignored'; expected classes, ignore, side",
    ),
    "neither": (rewrite("classes.toml", "classes =", "side ="), "has neither; expected either"),
    "one class": (lambda r: (r / "classes.toml").write_text(
        'classes = [{name = "sky", color = "#808080"}]'), "has 1 classes; expected 2 to 255"),
    "no colour": (rewrite("classes.toml", ', color = "#e6194b"', ""), "{'name': 'disc'}; expected"),
    "bad colour": (rewrite("classes.toml", "#e6194b", "red"), "'disc' has the color 'red'"),
    "name twice": (rewrite("classes.toml", "disc", "square"), "the name 'square' twice"),
    "colour twice": (rewrite("classes.toml", "#e6194b", "#3CB44B"), "colour '#3cb44b' twice"),
    "ignores a class": (rewrite("classes.toml", "255", "2"), "ignore is 2; .* from 3 to 255"),
    "side": (rewrite("classes.toml", "ignore = 255", "side = 100"), "side is 100; .* from 64 to"),
    "no images": (lambda r: (r / "images").rename(r / "pictures"), "images: no such folder"),
    "same name": (
        lambda r: picture(r / "images" / "day" / "003.jpg", (64, 96)),
        r"003\.png: has the name of 003\.jpg",
    ),
    "broken image": (
        lambda r: (r / "images" / "day" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\nno"),
        r"images/day/001\.png: is no readable image",
    ),
    "no label file": (
        lambda r: (r / "labels" / "day" / "004.png").unlink(),
        r"labels/day/004\.png: no such file; expected a label file",
    ),
    "size": (
        lambda r: label_map(r / "labels" / "day" / "002.png", np.zeros((96, 64))),
        r"labels/day/002\.png: is \(96, 64\) px, its image \(64, 96\)",
    ),
    "out of range": (
        lambda r: label_map(r / "labels" / "day" / "002.png", np.pad([[9]], ((3, 60), (5, 90)))),
        r"002\.png: has the label 9 at row 3, column 5; expected 0 to 2 for the 3 classes in "
        r"classes\.toml, or 255 to ignore",
    ),
    "unknown colour": (
        lambda r: picture(r / "labels" / "day" / "002.png", (64, 96)),
        r"002\.png: has the colour #[0-9a-f]{6} at row 0, column 0; expected colours of the 3",
    ),
    "mode": (
        lambda r: Image.new("I;16", (96, 64)).save(r / "labels" / "day" / "002.png"),
        r"002\.png: has mode I;16; expected class numbers",
    ),
    "empty list": (lambda r: (r / "val.txt").write_text("\n"), r"val\.txt: is empty"),
    "unknown image": (
        lambda r: (r / "val.txt").write_text("day/001\nnight/001\n"),
        r"val\.txt: names 'night/001', which is no image",
    ),
    "in two lists": (
        lambda r: [(r / f"{s}.txt").write_text("day/001\n") for s in ("train", "val")],
        r"val\.txt: names 'day/001', as train\.txt does",
    ),
    "nothing left": (
        lambda r: (r / "val.txt").write_text("".join(f"day/{i:03d}\n" for i in range(6))),
        "no image left for the split train",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CLASS_FAULTS)
def test_a_fault_in_a_folder_of_classes_names_file_and_value(tmp_path: Path, fault: str) -> None:
    edit, message = CLASS_FAULTS[fault]
    root = shapes_tree(tmp_path, images=6)
    edit(root)
    with pytest.raises(DataError, match=message):
        all_faults(root)


POSE_FAULTS: dict[str, tuple[Edit, str]] = {
    "unknown joint in a pair": (
        rewrite("classes.toml", 'pairs = [["left"', 'pairs = [["lift"'),
        "pairs has the unknown joint 'lift'; expected names from `joints`: top, left",
    ),
    "joint in two pairs": (
        rewrite("classes.toml", "pairs = [", 'pairs = [["top", "left"], '),
        "pairs has .*'left', 'right'.* expected each joint in one pair",
    ),
    "no pair": (rewrite("classes.toml", '["top", "bottom"]', '["top"]'), "torso has .'top'.;"),
    "no torso": (rewrite("classes.toml", "torso", "#"), "has no `torso`; expected two joints"),
    "joint that is not annotated": (
        annotate(lambda c: c["categories"][0].update(keypoints=["top", "left", "right"])),
        r"classes\.toml: has the unknown joint 'bottom'; expected keypoints of annotations\.json",
    ),
    "no annotations": (lambda r: (r / "annotations.json").unlink(), "json: no such file"),
    "no JSON": (lambda r: (r / "annotations.json").write_text("{"), "json: is not JSON"),
    "not COCO": (lambda r: (r / "annotations.json").write_text("[]"), "not in COCO's format"),
    "no keypoints": (
        annotate(lambda c: c["categories"][0].pop("keypoints")),
        "has no category with `keypoints`",
    ),
    "image without a file": (
        annotate(lambda c: c["images"][1].pop("file_name")),
        "has the image {'id': 1}; expected `id` and `file_name`",
    ),
    "unknown image": (
        annotate(lambda c: c["annotations"][2].update(image_id=99)),
        "has annotation 2 of the unknown image 99",
    ),
    "number of joints": (
        annotate(lambda c: c["annotations"][2].update(keypoints=[1, 2, 2])),
        r"has annotation 2 with the keypoints \[1, 2, 2\]; .* visibility of 4 joints",
    ),
    "box": (
        annotate(lambda c: c["annotations"][2].update(bbox=[1, 2, 0, 9])),
        r"has annotation 2 with the bbox \[1, 2, 0, 9\]",
    ),
    "box outside": (
        annotate(lambda c: c["annotations"][2].update(bbox=[500, 2, 10, 9])),
        r"001\.png: is 160x96 px, and 001:2 is at 498,0 to 511,13",
    ),
    "image missing": (
        lambda r: (r / "images" / "003.png").unlink(),
        r"images/003\.png: no such file; expected the image that annotations\.json names",
    ),
    "nobody's torso": (
        annotate(lambda c: [p["keypoints"].__setitem__(2, 0) for p in c["annotations"]]),
        "nobody in the split train whose top and bottom are both visible",
    ),
}


@pytest.mark.parametrize("fault", POSE_FAULTS)
def test_a_fault_in_a_folder_of_people_names_file_and_value(tmp_path: Path, fault: str) -> None:
    edit, message = POSE_FAULTS[fault]
    root = kites_tree(tmp_path)
    edit(root)
    with pytest.raises(DataError, match=message):
        all_faults(root)


def test_all_faults_of_a_folder_are_counted_and_the_first_few_told(tmp_path: Path) -> None:
    root = shapes_tree(tmp_path, images=12)
    for i in range(7):
        label_map(root / "labels" / "day" / f"{i:03d}.png", np.full((64, 96), 40 + i))
    with pytest.raises(DataError) as caught:
        all_faults(root)
    message = str(caught.value)
    assert f"{root}: has 7 faults; the first 5 are:" in message
    assert len(re.findall(r"\n  .*\.png: has the label 4\d at row 0", message)) == 5
    assert message.endswith("Correct them all.")


def test_a_png_that_is_cut_off_anywhere_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    root = shapes_tree(tmp_path, images=6)
    path = root / "labels" / "day" / "002.png"
    whole = path.read_bytes()
    for end in range(0, len(whole) - 24, 11):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"labels/day/002\.png: is no readable image"):
            all_faults(root)
