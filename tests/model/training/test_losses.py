"""The losses of each exit against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from anytime_model.data.loading import Batch
from anytime_model.data.sample import IGNORE
from anytime_model.errors import ConfigError
from anytime_model.training.losses import (
    CrossEntropy,
    HeatmapError,
    cross_entropy,
    gaussians,
    heatmap_error,
    per_exit,
    soft_targets,
)
from anytime_model.training.lovasz import lovasz_softmax


def batch(labels: torch.Tensor | None = None, joints: torch.Tensor | None = None) -> Batch:
    return Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), labels, joints, None, ("a",))


def test_equation_1_sees_each_exit_alone() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    right = torch.zeros(1, 3, 2, 2)
    right[:, 0] = 50
    maps = [torch.zeros(1, 3, 2, 2), right, right, right]
    terms = per_exit(CrossEntropy(), maps, batch(labels), step=0)
    assert terms.tolist() == pytest.approx([math.log(3), 0, 0, 0], abs=1e-4)


def test_cross_entropy_at_stride_1_is_torchs_on_the_enlarged_map() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, 6, generator=random)
    labels = torch.randint(0, 5, (2, 16, 24), generator=random).to(torch.uint8)
    labels[0, :4] = IGNORE
    weights = torch.rand(5, generator=random) + 0.5
    large = F.interpolate(logits, size=(16, 24), mode="bilinear")
    expected = F.cross_entropy(large, labels.long(), weights, ignore_index=IGNORE)
    found = cross_entropy(logits, labels, 1, 0, weights=weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stride", [2, 4])
def test_coarse_losses_look_at_the_two_middle_pixels_in_turn(stride: int) -> None:
    labels = torch.full((1, 16, 16), IGNORE, dtype=torch.uint8)
    middle = stride // 2
    labels[:, middle::stride, middle::stride] = 1
    labels[:, middle - 1 :: stride, middle - 1 :: stride] = 2
    for step, truth in ((0, 1), (1, 2), (2, 1)):
        logits = torch.zeros(1, 3, 4, 4)
        logits[:, truth] = 50
        assert cross_entropy(logits, labels, stride, step) < 1e-4


def test_an_image_without_a_label_costs_nothing() -> None:
    labels = torch.full((1, 8, 8), IGNORE, dtype=torch.uint8)
    assert cross_entropy(torch.randn(1, 3, 2, 2), labels, 1, 0) == 0


def test_overlap_adds_the_lovasz_loss_of_the_maps_own_resolution() -> None:
    labels = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(2))
    maps = [torch.randn(1, 3, 2, 2)] * 4
    example = batch(labels.to(torch.uint8))
    plain, more = (per_exit(CrossEntropy(overlap=w), maps, example, step=0) for w in (0.0, 0.5))
    expected = 0.5 * lovasz_softmax(maps[0], labels[:, 2::4, 2::4], IGNORE)
    torch.testing.assert_close(more - plain, expected.expand(4))


def test_soft_targets_are_the_divergence_where_the_teacher_is_right() -> None:
    labels = torch.tensor([[0, 1]], dtype=torch.uint8)[None]
    teacher = torch.tensor([[[[4.0, 4.0]], [[0.0, 0.0]]]])  # right at the first cell alone
    flat = torch.zeros(1, 2, 1, 2, requires_grad=True)
    terms = soft_targets([flat, teacher], teacher, labels, step=0)
    wanted = (teacher[0, :, 0, 0] / 2).softmax(0)
    expected = 4 * (wanted * (wanted.log() - math.log(0.5))).sum()
    assert terms.tolist() == pytest.approx([float(expected), 0.0])
    terms.sum().backward()
    assert flat.grad is not None
    assert not flat.grad[..., 1].any()


def test_a_gaussian_peaks_where_decoding_looks_for_it() -> None:
    joints = torch.tensor([[[13.5, 21.5, 1.0]]])  # the centres of cells 3 and 5
    target = gaussians(joints, (10, 12), 1.5, 4)
    assert target.shape == (1, 1, 10, 12)
    assert target[0, 0, 5, 3] == 1
    assert target.argmax() == 5 * 12 + 3
    assert target[0, 0, 5, 4] == pytest.approx(math.exp(-1 / (2 * 1.5**2)))


def test_unseen_joints_cost_nothing() -> None:
    target = gaussians(torch.tensor([[[9.5, 9.5, 0.0]]]), (6, 6), 2.0, 4)
    assert heatmap_error(torch.randn(1, 1, 6, 6), target, torch.zeros(1, 1), 0.01) == 0


def test_the_localising_term_prefers_a_peak_at_the_joint() -> None:
    target = gaussians(torch.tensor([[[5.5, 5.5, 1.0]]]), (12, 12), 1.0, 4)
    seen = torch.ones(1, 1)
    elsewhere = target.flip(-1)
    for weight in (0.0, 0.01):
        right, wrong, nothing = (
            float(heatmap_error(maps, target, seen, weight))
            for maps in (target, elsewhere, torch.zeros_like(target))
        )
        assert right < nothing < wrong


def test_a_loss_without_its_truth_is_refused() -> None:
    maps = [torch.zeros(1, 3, 2, 2)] * 4
    with pytest.raises(ConfigError, match="needs class labels"):
        per_exit(CrossEntropy(), maps, batch(), step=0)
    with pytest.raises(ConfigError, match="needs joints"):
        per_exit(HeatmapError(), maps, batch(), step=0)
