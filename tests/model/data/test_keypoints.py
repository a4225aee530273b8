"""Labels of joints are merged with what another network has found on the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anytime_model.data.camvid import CamVid
from anytime_model.data.keypoints import COCO, FoundKeypoints, MergedSource, combined, merged
from anytime_model.data.lspet import JOINTS, SKELETON, Lspet
from anytime_model.errors import ConfigError, DataError
from model.data_factories import camvid_tree, lspet_tree

FLIP = SKELETON.flip
HEAD_PX = 10.0


def labelled() -> np.ndarray:
    """14 visible joints, 20 px from one another."""
    places = [(20.0 * (j % 4), 20.0 * (j // 4), 1.0) for j in range(14)]
    return np.array(places, dtype=np.float32)


def found_at(joints: np.ndarray, score: float = 0.9) -> np.ndarray:
    """Key points of the first 12 joints, at these places."""
    found = joints.copy()
    found[:, 2] = score
    found[12:] = np.nan
    return found


def test_two_findings_within_half_a_head_become_their_mean() -> None:
    plain = np.array([[10, 10, 0.5], [10, 10, 0.5]], dtype=np.float32)
    mirrored = np.array([[14, 10, 0.7], [16, 10, 0.7]], dtype=np.float32)
    near, apart = combined(plain, mirrored, HEAD_PX).tolist()
    assert near == pytest.approx([12, 10, 0.7])
    assert apart == pytest.approx([16, 10, 0.0])


def test_a_label_near_the_key_point_becomes_the_mean_of_both() -> None:
    joints = labelled()
    found = found_at(joints, score=0.1)
    found[0, 0] += 4
    result = merged(joints, found, HEAD_PX, FLIP)
    assert result[0].tolist() == [joints[0, 0] + 2, joints[0, 1], 1]
    np.testing.assert_array_equal(result[1:], joints[1:])


@pytest.mark.parametrize(("score", "taken"), [(0.9, True), (0.3, False)])
def test_only_a_sure_key_point_replaces_a_label_that_is_far_away(score: float, taken: bool) -> None:
    joints = labelled()
    found = found_at(joints, score)
    found[0, :2] += 9
    result = merged(joints, found, HEAD_PX, FLIP)
    expected = found[0, :2] if taken else joints[0, :2]
    np.testing.assert_array_equal(result[0, :2], expected)


def test_an_unlabelled_joint_becomes_visible_where_the_key_point_is_sure() -> None:
    joints = labelled()
    found = found_at(joints)
    found[1, 2] = 0.3
    joints[:2] = 0
    result = merged(joints, found, HEAD_PX, FLIP)
    assert result[0].tolist() == [*found[0, :2].tolist(), 1]
    assert result[1].tolist() == [0, 0, 0]


def test_a_person_labelled_from_the_viewers_side_is_turned_round_but_for_neck_and_head() -> None:
    truth = labelled()
    found = found_at(truth, score=0.3)
    found[0, 2] = 0.0
    result = merged(truth[list(FLIP)], found, HEAD_PX, FLIP)
    np.testing.assert_array_equal(result, truth)


def test_one_pair_with_its_sides_changed_is_changed_back_and_no_other() -> None:
    truth = labelled()
    joints = truth.copy()
    joints[[6, 11]] = truth[[11, 6]]
    result = merged(joints, found_at(truth, score=0.3), HEAD_PX, FLIP)
    np.testing.assert_array_equal(result, truth)


def test_sides_stay_where_the_network_is_not_sure_enough_to_tell_them() -> None:
    joints = labelled()
    found = found_at(joints[list(FLIP)], score=0.1)
    np.testing.assert_array_equal(merged(joints, found, HEAD_PX, FLIP), joints)


def test_neck_and_head_keep_their_labels_and_inputs_are_left_alone() -> None:
    joints = labelled()
    found = found_at(joints + 30)
    before = joints.copy()
    result = merged(joints, found, HEAD_PX, FLIP)
    np.testing.assert_array_equal(result[12:], joints[12:])
    np.testing.assert_array_equal(joints, before)


def keypoint_file(path: Path, names: list[str], **changes: np.ndarray) -> Path:
    """Key points at (20, 20) in every image."""
    points = np.full((len(names), len(COCO), 3), 20, dtype=np.float16)
    points[..., 2] = 0.9
    arrays = {"name": np.array(names), "keypoints": points, "keypoints_mirrored": points}
    np.savez(path, **(arrays | changes))
    return path


def test_a_split_is_merged_by_the_names_of_its_images(tmp_path: Path) -> None:
    source = Lspet(lspet_tree(tmp_path / "lspet"), "train")
    names = [source[i].name for i in reversed(range(len(source)))]
    path = keypoint_file(tmp_path / "found.npz", names)
    taught = MergedSource(source, FoundKeypoints.read(path))
    assert (len(taught), taught.outputs, taught.skeleton) == (len(source), JOINTS, SKELETON)
    sample, plain = taught[1], source[1]
    assert sample.name == plain.name
    assert sample.joints is not None
    assert plain.joints is not None
    assert sample.joints[0].tolist() == [20, 20, 1]
    np.testing.assert_array_equal(sample.joints[12:], plain.joints[12:])


def test_key_points_outside_the_image_are_not_taken(tmp_path: Path) -> None:
    source = Lspet(lspet_tree(tmp_path / "lspet"), "train")
    outside = np.full((1, len(COCO), 3), 40, dtype=np.float32)
    outside[..., 2] = 0.9
    path = keypoint_file(
        tmp_path / "found.npz", [source[0].name], keypoints=outside, keypoints_mirrored=outside
    )
    joints = MergedSource(source, FoundKeypoints.read(path))[0].joints
    assert joints is not None
    np.testing.assert_array_equal(joints, source[0].joints)


def test_an_image_without_key_points_is_named(tmp_path: Path) -> None:
    source = Lspet(lspet_tree(tmp_path / "lspet"), "train")
    path = keypoint_file(tmp_path / "found.npz", ["another"])
    with pytest.raises(DataError, match=rf"found\.npz.*no key points of {source[0].name}"):
        MergedSource(source, FoundKeypoints.read(path))[0]


def test_classes_cannot_be_merged_with_key_points(tmp_path: Path) -> None:
    source = CamVid(camvid_tree(tmp_path / "camvid"), "train")
    found = FoundKeypoints.read(keypoint_file(tmp_path / "found.npz", ["one"]))
    with pytest.raises(ConfigError, match="leave out --keypoints"):
        MergedSource(source, found)


ONE = np.zeros((1, len(COCO), 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": ONE[:, :16]}, r"keypoints of shape \(1, 16, 3\)"),
        ({"keypoints_mirrored": ONE.astype(int)}, "keypoints_mirrored of shape .* int64"),
        ({"keypoints": ONE + 2}, "scores outside 0 to 1"),
        ({"keypoints": ONE * np.nan}, "not finite"),
        ({"name": np.array([1])}, "names of shape .* int64"),
        ({"name": np.array(["one", "one"]), "keypoints": np.repeat(ONE, 2, 0),
          "keypoints_mirrored": np.repeat(ONE, 2, 0)}, "a name twice"),
        ({"name": np.array([None])}, "is no readable"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    path = keypoint_file(tmp_path / "found.npz", ["one"], **changes)
    with pytest.raises(DataError, match=message):
        FoundKeypoints.read(path)


def test_what_is_no_file_of_key_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        FoundKeypoints.read(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("not an archive", encoding="utf-8")
    with pytest.raises(DataError, match="is no readable"):
        FoundKeypoints.read(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", ONE)
    with pytest.raises(DataError, match="is no readable"):
        FoundKeypoints.read(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", name=np.array(["one"]))
    with pytest.raises(DataError, match="lacks an array"):
        FoundKeypoints.read(tmp_path / "other.npz")
