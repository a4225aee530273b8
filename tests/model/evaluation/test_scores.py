"""Scores agree with their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_auroc

from anytime_model.data.loading import Batch
from anytime_model.data.sample import IGNORE
from anytime_model.evaluation.scores import (
    FailureRanking,
    Lost,
    PoseScore,
    Reliability,
    SegmentationScore,
)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_iou_is_intersection_over_union(pairs: list[tuple[int, int]]) -> None:
    score = SegmentationScore(4)
    found, true = (torch.tensor(column).view(1, 1, -1) for column in zip(*pairs, strict=True))
    score.add(found, true)
    for k in range(4):
        both = sum(f == k and t == k for f, t in pairs)
        either = sum(f == k or t == k for f, t in pairs)
        iou = float(score.iou[k])
        assert math.isnan(iou) if either == 0 else iou == pytest.approx(both / either)
    assert score.accuracy == pytest.approx(sum(f == t for f, t in pairs) / len(pairs))


def test_scores_add_up_over_images_and_skip_ignored_pixels() -> None:
    score = SegmentationScore(2)
    score.add(torch.tensor([[[0, 0, 1]]]), torch.tensor([[[0, 1, IGNORE]]]))
    score.add(torch.tensor([[[1, 1, 1]]]), torch.tensor([[[1, 1, 1]]]))
    assert score.accuracy == pytest.approx(4 / 5)
    assert score.iou.tolist() == pytest.approx([1 / 2, 3 / 4])
    assert score.mean_iou == pytest.approx(5 / 8)


def test_a_joint_is_right_up_to_its_share_of_the_unit_and_not_beyond() -> None:
    score = PoseScore(3, 0.5)
    truth = torch.tensor([[[10.0, 10, 1], [20, 20, 1], [30, 30, 0]]])
    found = torch.tensor([[[15.0, 10, 0.9], [20, 25.1, 0.9], [0, 0, 0.9]]])
    score.add(found, truth, torch.tensor([10.0]))
    assert score.right.tolist() == [1, 0, 0]
    assert score.total.tolist() == [1, 1, 0]
    assert score.mean == 0.5


def test_people_without_a_known_unit_are_left_out() -> None:
    score = PoseScore(1, 0.5)
    truth = torch.tensor([[[10.0, 10, 1]], [[10.0, 10, 1]]])
    score.add(truth, truth, torch.tensor([float("nan"), 4.0]))
    assert score.total.tolist() == [1]


def test_calibration_error_is_the_distance_of_confidence_from_accuracy() -> None:
    reliability = Reliability(bins=10)
    reliability.add(torch.full((100,), 0.95), torch.arange(100) < 75)
    assert reliability.error == pytest.approx(0.2)
    reliability.add(torch.full((100,), 0.55), torch.arange(100) < 55)
    assert reliability.error == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_calibration_error_is_a_share_and_takes_batches_in_any_cut(
    values: list[tuple[float, bool]],
) -> None:
    confidence = torch.tensor([c for c, _ in values], dtype=torch.float64)
    right = torch.tensor([r for _, r in values])
    whole, parts = Reliability(), Reliability()
    whole.add(confidence, right)
    cut = len(values) // 2
    parts.add(confidence[:cut], right[:cut])
    parts.add(confidence[cut:], right[cut:])
    assert 0 <= whole.error <= 1
    assert parts.error == pytest.approx(whole.error)


def test_the_ranking_of_failures_is_the_area_under_the_roc_curve() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = 1 - torch.rand(5000, generator=generator) ** 4
    right = torch.rand(5000, generator=generator) < confidence
    ranking = FailureRanking()
    for part in range(5):
        ranking.add(confidence[part::5], right[part::5])
    exact = float(binary_auroc(confidence, right.long()))
    assert 0.6 < exact < 0.95
    assert ranking.area == pytest.approx(exact, abs=1e-3)


def test_a_ranking_without_failures_has_no_area_and_ties_count_half() -> None:
    ranking = FailureRanking()
    ranking.add(torch.tensor([1.0, 0.3]), torch.tensor([True, True]))
    assert math.isnan(ranking.area)
    ranking.add(torch.tensor([0.3]), torch.tensor([False]))
    assert ranking.area == 0.75


def test_pixels_that_were_right_and_became_wrong_are_lost() -> None:
    labels = torch.tensor([[[0, 1, 2, IGNORE]]], dtype=torch.uint8)
    batch = Batch(torch.zeros((1, 3, 1, 4), dtype=torch.uint8), labels, None, None, ("one",))
    lost = Lost()
    lost.add(None, labels == 0, batch)
    assert lost.share is None
    lost.add(labels <= 1, (labels == 0) | (labels == 2), batch)
    assert lost.share == pytest.approx(1 / 3)
