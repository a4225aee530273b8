"""Decoding: where a map's classes and joints lie in the image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anytime_model.errors import ConfigError
from anytime_model.tasks import (
    POSE,
    SEGMENTATION,
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
    points = decode_keypoints(gaussian(u, v)[None, None], (96, 96))[0, 0]
    assert abs(points[0] - (4 * u + 1.5)) <= 1.01
    assert abs(points[1] - (4 * v + 1.5)) <= 1.01
    assert 0.8 < points[2] <= 1


def test_a_joint_in_the_padding_is_not_looked_at():
    heatmap = gaussian(20, 20) + 0.5 * gaussian(5, 5)
    x, y, _ = decode_keypoints(heatmap[None, None], (40, 40))[0, 0]
    assert abs(x - 21.5) <= 1
    assert abs(y - 21.5) <= 1


def test_joints_at_the_border_stay_in_the_image():
    heatmap = torch.zeros(1, 1, 8, 8)
    heatmap[0, 0, 0, 7] = 1
    x, y, score = decode_keypoints(heatmap, (30, 31))[0, 0]
    assert 0 <= x <= 30
    assert 0 <= y <= 29
    assert score == 1


@given(st.floats(-100, 1000))
def test_heatmap_and_image_coordinates_invert_each_other(x):
    assert to_image(to_heatmap(torch.tensor(x))) == pytest.approx(x, abs=1e-3)


def test_labels_have_the_size_of_the_image_and_the_class_of_the_largest_logit():
    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 1, :, :4] = 5
    logits[:, 2, :, 4:] = 5
    labels = decode_labels(logits, (30, 31))
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
