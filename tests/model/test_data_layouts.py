"""Each loader reads its publisher's layout, and says clearly what is missing from a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from anytime_model.data import mpii, pascal_context
from anytime_model.data.camvid import CamVid
from anytime_model.data.catalogue import LAYOUTS, open_layout, recognise
from anytime_model.data.cityscapes import CLASSES, TRAINED_IDS, Cityscapes
from anytime_model.data.lspet import Lspet
from anytime_model.data.mpii import Mpii
from anytime_model.data.pascal_context import PascalContext
from anytime_model.data.sample import IGNORE
from anytime_model.errors import DataError
from model.learning_fakes import camvid_tree, halves, label_map, lspet_tree, picture

SHARED = Path(__file__).parents[3] / "shared" / "data"


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


def test_camvid_yields_class_ids_and_ignores_void(tmp_path: Path) -> None:
    sample = CamVid(camvid_tree(tmp_path), "test")[0]
    assert sample.name == "Seq05VD_f00000"
    assert sample.image.shape == (48, 64, 3)
    assert sample.labels is not None
    assert sample.labels[0, 0] == IGNORE
    assert set(np.unique(sample.labels)) == {0, 3, IGNORE}


def test_camvid_holds_out_the_end_of_each_drive_and_trains_on_the_rest(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    held = {CamVid(root, "holdout")[i].name for i in range(len(CamVid(root, "holdout")))}
    fit = {CamVid(root, "fit")[i].name for i in range(len(CamVid(root, "fit")))}
    assert held == {"0006R0_f00009", "0016E5_00009"}
    assert not held & fit
    assert len(fit) == 18 + 2  # every fourth of eight validation frames


def test_lspet_leaves_flagged_people_out_and_stands_in_for_unseen_heads(tmp_path: Path) -> None:
    source = Lspet(lspet_tree(tmp_path), "val")
    assert len(source) == 3
    assert source[0].head_px == pytest.approx(0.184 * 20)
    assert source[1].head_px == 5.0
    joints = source[1].joints
    assert joints is not None
    assert joints[3].tolist() == [7.0, 9.0, 1.0]
    assert joints[13, 2] == 0


def test_cityscapes_keeps_the_19_trained_ids_and_ignores_the_others(tmp_path: Path) -> None:
    sample = Cityscapes(cityscapes_tree(tmp_path), "val")[0]
    assert sample.name == "lindau_000000_000019"
    assert sample.labels is not None
    assert sample.labels[0, 0] == IGNORE
    assert set(np.unique(sample.labels)) == {0, 18, IGNORE}
    assert len(CLASSES) == len(TRAINED_IDS) == 19


@pytest.mark.parametrize("published", [True, False])
def test_pascal_context_maps_its_59_classes(tmp_path: Path, *, published: bool) -> None:
    source = PascalContext(context_tree(tmp_path, published=published), "train")
    assert len(source) == 1
    labels = source[0].labels
    assert labels is not None
    assert set(np.unique(labels)) == {0, 58, IGNORE}
    assert len(source.outputs) == 59


@pytest.mark.parametrize("tree", [mpii_json_tree, mpii_published_tree])
def test_mpii_crops_a_square_around_the_person(tmp_path: Path, tree: object) -> None:
    sample = Mpii(tree(tmp_path), "train")[0]  # type: ignore[operator]
    assert sample.image.shape == (256, 256, 3)
    assert sample.joints is not None
    # The centre (150, 85) is lowered by 15 px; the square has 250 px.
    expected = (np.array([100.0, 50.0]) - [150, 100]) * 256 / 250 + 127.5
    np.testing.assert_allclose(sample.joints[0], [*expected, 1], atol=1e-4)
    assert sample.joints[15].tolist() == [0, 0, 0]


def test_mpii_takes_the_head_size_from_its_own_box(tmp_path: Path) -> None:
    validation = Mpii(mpii_json_tree(tmp_path / "json"), "val")[0]
    published = Mpii(mpii_published_tree(tmp_path / "mat"), "train")[0]
    assert validation.head_px == pytest.approx(0.6 * 50 * 256 / 250)
    assert published.head_px == pytest.approx(0.6 * 50 * 256 / 250)


def test_mpii_published_has_no_validation_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valid\.json: no such file"):
        Mpii(mpii_published_tree(tmp_path), "val")


def test_mpii_fills_what_lies_outside_the_picture_with_grey(tmp_path: Path) -> None:
    root = mpii_json_tree(tmp_path)
    picture(root / "images" / "0001.jpg", (40, 40))
    corner = Mpii(root, "train")[0].image[-1, -1]
    assert corner.tolist() == [124, 116, 104]


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("camvid", camvid_tree),
        ("lspet", lspet_tree),
        ("cityscapes", cityscapes_tree),
        ("mpii", mpii_json_tree),
        ("mpii", mpii_published_tree),
    ],
)
def test_a_folder_is_recognised_by_its_layout(tmp_path: Path, name: str, build: object) -> None:
    assert recognise(build(tmp_path)) == name  # type: ignore[operator]


def test_pascal_context_is_recognised_in_both_forms(tmp_path: Path) -> None:
    for published in (True, False):
        root = context_tree(tmp_path / str(published), published=published)
        assert recognise(root) == "pascal-context"


def test_an_unknown_folder_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leftImg8bit"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_missing_root_says_what_was_expected_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="expected") as caught:
        open_layout(name, tmp_path / "nowhere", "train")
    assert "nowhere" in str(caught.value.path)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_an_unknown_split_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"ask for one of .*train"):
        open_layout(name, tmp_path, "everything")


def test_labels_of_another_size_than_their_image_are_refused(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    label_map(root / "labels" / "test" / "Seq05VD_f00000.png", halves((10, 10), 0, 1))
    with pytest.raises(DataError, match="labels of the image's size"):
        CamVid(root, "test")[0]


def test_an_id_that_the_set_does_not_have_is_refused(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    label_map(root / "labels" / "test" / "Seq05VD_f00000.png", halves((48, 64), 0, 12))
    with pytest.raises(DataError, match="holds the id 12"):
        CamVid(root, "test")[0]


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    path = root / "images" / "test" / "Seq05VD_f00000.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"Seq05VD_f00000\.jpg: is no readable image"):
        CamVid(root, "test")[0]


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    (root / "labels" / "test" / "Seq05VD_f00000.png").unlink()
    with pytest.raises(DataError, match="no such label file"):
        CamVid(root, "test")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ('{"pictures": []}', "lacks"),
        ('{"images": []}', "has no image of the split"),
    ],
)
def test_malformed_lspet_annotations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = lspet_tree(tmp_path)
    (root / "annotations.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Lspet(root, "train")


def test_a_person_with_too_few_joints_is_refused(tmp_path: Path) -> None:
    root = lspet_tree(tmp_path)
    content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    content["images"][0]["joints"] = [[0, 0, 0]]
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="expected 14 joints"):
        Lspet(root, "train")[0]


def test_a_malformed_mpii_record_is_refused(tmp_path: Path) -> None:
    root = mpii_json_tree(tmp_path)
    (root / "annot" / "train.json").write_text('[{"image": "0001.jpg"}]', encoding="utf-8")
    with pytest.raises(DataError, match="record 0 is malformed"):
        Mpii(root, "train")


def test_a_file_that_is_no_matlab_file_is_refused(tmp_path: Path) -> None:
    root = mpii_published_tree(tmp_path)
    (root / "mpii_human_pose_v1_u12_1.mat").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(DataError, match="is no MATLAB file"):
        Mpii(root, "train")


def test_mirroring_twice_is_the_identity_for_every_skeleton() -> None:
    for skeleton in (mpii.SKELETON, Lspet.skeleton):
        assert skeleton is not None
        flip = skeleton.flip
        assert [flip[flip[j]] for j in range(len(flip))] == list(range(len(flip)))


@pytest.mark.skipif(not SHARED.exists(), reason="the real data sets are not here")
def test_the_real_sets_have_their_published_counts() -> None:
    sizes = {s: len(CamVid(SHARED / "camvid", s)) for s in ("train", "val", "test")}
    assert sizes == {"train": 367, "val": 101, "test": 233}
    people = {s: len(Lspet(SHARED / "lspet", s)) for s in ("train", "val", "test")}
    assert people == {"train": 8054 - 135, "val": 500 - 3, "test": 500 - 9}
