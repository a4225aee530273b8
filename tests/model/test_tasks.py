"""Tasks: where a map's classes and joints lie in the image, and how sure a result is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anytime_model.errors import ConfigError
from anytime_model.results import ExitResult, Keypoints
from anytime_model.tasks import (
    POSE,
    SEGMENTATION,
    TASKS,
    decode_keypoints,
    decode_labels,
    to_heatmap,
    to_image,
)


def gaussian(u, v, size=24):
    grid = torch.arange(size, dtype=torch.float32)
    return torch.exp(-((grid[None, :] - u) ** 2 + (grid[:, None] - v) ** 2) / 8)


@given(st.floats(2, 20), st.floats(2, 20))
def test_a_joint_is_found_within_a_cells_quarter(u, v):
    points = decode_keypoints(gaussian(u, v)[None, None], (96, 96), 4)[0, 0]
    assert abs(points[0] - (4 * u + 1.5)) <= 1.01
    assert abs(points[1] - (4 * v + 1.5)) <= 1.01
    assert 0.8 < points[2] <= 1


def test_a_joint_in_the_padding_is_not_looked_at():
    heatmap = gaussian(20, 20) + 0.5 * gaussian(5, 5)
    x, y, _ = decode_keypoints(heatmap[None, None], (40, 40), 4)[0, 0]
    assert abs(x - 21.5) <= 1
    assert abs(y - 21.5) <= 1


def test_joints_at_the_border_stay_in_the_image():
    heatmap = torch.zeros(1, 1, 8, 8)
    heatmap[0, 0, 0, 7] = 1
    x, y, score = decode_keypoints(heatmap, (30, 31), 4)[0, 0]
    assert 0 <= x <= 30
    assert 0 <= y <= 29
    assert score == 1


@given(st.floats(-100, 1000))
def test_heatmap_and_image_coordinates_invert_each_other(x):
    assert to_image(to_heatmap(torch.tensor(x), 4), 4) == pytest.approx(x, abs=1e-3)


def test_labels_have_the_size_of_the_image_and_the_class_of_the_largest_logit():
    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 1, :, :4] = 5
    logits[:, 2, :, 4:] = 5
    labels = decode_labels(logits, (30, 31), 4)
    assert labels.shape == (1, 30, 31)
    assert labels.dtype == torch.uint8
    assert (labels[..., :16] == 1).all()
    assert (labels[..., 16:] == 2).all()


def test_each_task_knows_its_criteria():
    assert SEGMENTATION.criterion("entropy", 0.5)(torch.zeros(1, 4, 2, 2)).all()
    assert POSE.criterion("heatmap_maximum", 0.5)(torch.ones(1, 4, 2, 2)).all()
    with pytest.raises(ConfigError, match="'heatmap_maximum' is no criterion for segmentation"):
        SEGMENTATION.criterion("heatmap_maximum", 0.5)
    with pytest.raises(ConfigError, match="share is 2"):
        SEGMENTATION.criterion("top_share", 2)


def result(logits, image_size=(14, 20)):
    """An exit with this map (K, h, w) for an image that has less cells than the map."""
    shape = logits.shape[1:]
    confidence = logits.max(axis=0)
    return ExitResult(1, image_size, logits, confidence, np.ones(shape, bool), macs=0)


def test_a_segmentation_is_as_sure_as_its_pixels_are_on_average():
    logits = np.zeros((3, 8, 8), np.float32)
    logits[0, :4, :5] = 0.75
    assert SEGMENTATION.mean_confidence(result(logits)) == pytest.approx(0.75)
    assert SEGMENTATION.mean_confidence(result(4 * logits)) == 1


def test_a_pose_is_as_sure_as_its_joints_are_on_average():
    heatmaps = np.full((3, 8, 8), -1, np.float32)
    heatmaps[0, 1, 2], heatmaps[1, 3, 4], heatmaps[2, 7, 7] = 0.5, 7, 1
    assert POSE.mean_confidence(result(heatmaps)) == pytest.approx((0.5 + 1 + 0) / 3)


def test_classes_of_cells_come_without_padding_and_a_pose_has_none():
    logits = np.random.default_rng(0).random((3, 8, 8), np.float32)
    labels = SEGMENTATION.labels_on_map(result(logits))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, logits[:, :4, :5].argmax(0))
    assert POSE.labels_on_map(result(logits)) is None


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_can_settle_everything(task):
    for logits in (torch.full((1, 3, 4, 4), -9.0), torch.full((1, 3, 4, 4), 1e6)):
        assert not task.settle_all()(logits).any()


def test_an_engines_own_decoding_is_for_classes_only():
    labels = np.ones((14, 20), np.uint8)
    logits = np.zeros((3, 8, 8), np.float32)
    assert SEGMENTATION.decode(result(logits), lambda _: labels).labels is labels
    assert isinstance(POSE.decode(result(logits), lambda _: labels), Keypoints)
