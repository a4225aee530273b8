"""Augmentation keeps pictures and truth together, and a seed repeats it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
from anytime_model.data.lspet import SKELETON
from anytime_model.data.sample import IGNORE, Sample

SEEDS = st.integers(0, 2**31 - 1)


def street(height: int = 40, width: int = 60) -> Sample:
    """A picture whose grey value is ten times its class."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[height // 2 :] = 7
    labels[:, width // 3 :] += 2
    image = np.repeat((labels * 10)[..., None], 3, axis=2)
    return Sample("street", image, labels=labels)


def person(x: float, y: float) -> Sample:
    """A black picture with a white dot of 5x5 px where every joint is."""
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    joints = np.tile(np.array([x, y, 1], dtype=np.float32), (14, 1))
    return Sample("person", image, joints=joints, head_px=10.0)


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_labels_follow_their_pixels_through_scaling_cropping_and_mirroring(seed: int) -> None:
    done = SegmentationAugmentation((48, 48), (0.5, 2.0)).build()(street(), seed)
    assert done.labels is not None
    assert done.image.shape == (48, 48, 3)
    assert done.labels.shape == (48, 48)
    known = done.labels != IGNORE
    off = np.abs(done.image[..., 0].astype(int) - 10 * done.labels.astype(int))
    assert (off[known] < 5).mean() > 0.85  # all but pixels on a border, which are interpolated


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_same_seed_repeats_an_augmentation(seed: int) -> None:
    pipeline = SegmentationAugmentation(
        (32, 32), (0.5, 2.0), colour=0.5, blur=0.5, light=0.5
    ).build()
    first = pipeline(street(), seed)
    pipeline(street(), seed + 1)
    again = pipeline(street(), seed)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_changes_of_the_light_leave_the_labels_as_they_are() -> None:
    plain = SegmentationAugmentation((40, 60), (1.0, 1.0), mirror=False)
    lit = replace(plain, light=1.0).build()(street(), seed=3)
    assert lit.labels is not None
    np.testing.assert_array_equal(lit.labels, street().labels)
    assert not np.array_equal(lit.image, street().image)


@given(seed=SEEDS, x=st.integers(20, 44), y=st.integers(20, 44))
@settings(max_examples=40, deadline=None)
def test_joints_follow_their_pixels(seed: int, x: int, y: int) -> None:
    pipeline = PoseAugmentation((48, 48), 0.2, 40.0, 1.0, 0.05).build(SKELETON)
    done = pipeline(person(x, y), seed)
    assert done.joints is not None
    bright = np.argwhere(done.image[..., 0] > 160)
    # The dot is the only thing brighter than the grey outside (124).
    centre = bright.mean(0)[::-1]
    np.testing.assert_allclose(done.joints[0, :2], centre, atol=1.0)


def test_a_mirrored_person_changes_left_for_right() -> None:
    sample = person(20, 30)
    assert sample.joints is not None
    sample.joints[:, 1] = np.arange(14) + 20
    pipeline = PoseAugmentation((64, 64), 0.0, 0.0, 0.0).build(SKELETON)
    for seed in range(20):
        joints = pipeline(sample, seed).joints
        assert joints is not None
        mirrored = joints[0, 0] > 32
        order = list(SKELETON.flip) if mirrored else list(range(14))
        np.testing.assert_allclose(joints[:, 1], np.array(order) + 20, atol=1e-3)
        if mirrored:
            return
    raise AssertionError("twenty seeds did not mirror once")


def test_a_joint_that_leaves_the_picture_is_no_longer_visible() -> None:
    sample = person(3, 3)
    pipeline = PoseAugmentation((64, 64), 0.0, 0.0, 0.0, shift=0.4, mirror=False).build(SKELETON)
    left = 0
    for seed in range(20):
        joints = pipeline(sample, seed).joints
        assert joints is not None
        inside = bool((joints[0, :2] >= 0).all() and (joints[0, :2] <= 63).all())
        assert joints[0, 2] == inside
        left += not inside
    assert left > 0


def test_the_head_grows_with_the_picture() -> None:
    pipeline = PoseAugmentation((128, 128), 0.0, 0.0, 0.0, mirror=False).build(SKELETON)
    assert pipeline(person(30, 30), 0).head_px == 20.0
