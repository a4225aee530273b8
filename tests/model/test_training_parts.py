"""Schedules, losses, averages, Muon and recipes: the parts of a training, one by one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from anytime_model.config import NUM_EXITS
from anytime_model.data.catalogue import LAYOUTS
from anytime_model.data.loading import Batch
from anytime_model.data.sample import IGNORE
from anytime_model.errors import ConfigError
from anytime_model.training.ema import WeightAverage
from anytime_model.training.losses import (
    CrossEntropy,
    HeatmapError,
    cross_entropy,
    gaussians,
    heatmap_error,
    per_exit,
)
from anytime_model.training.lovasz import lovasz_softmax
from anytime_model.training.muon import Muon, orthogonal
from anytime_model.training.recipe import Adaptivity
from anytime_model.training.recipes import RECIPES
from anytime_model.training.schedules import Poly, Schedule, Steps, WarmStableDecay
from model.learning_fakes import tiny_recipe


def batch(labels: torch.Tensor | None = None, joints: torch.Tensor | None = None) -> Batch:
    return Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), labels, joints, None, ("a",))


@given(
    schedule=st.sampled_from(
        [Poly(0.9, 10), Steps((2, 4), warmup_steps=5), WarmStableDecay(3, warmup_steps=4)]
    ),
    step=st.integers(0, 99),
)
def test_a_factor_is_between_0_and_1_and_falls_once_warm(schedule: Schedule, step: int) -> None:
    now, then = (schedule.factor(s, 10, 100) for s in (step, step + 1))
    assert 0 < now <= 1
    if step >= 10:
        assert then <= now


def test_steps_fall_to_a_tenth_at_their_epochs() -> None:
    schedule = Steps((170, 200))
    factors = [schedule.factor(epoch * 7, 7, 1470) for epoch in (169, 170, 199, 200)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


def test_poly_is_hrnets() -> None:
    assert Poly(0.9).factor(30, 10, 100) == pytest.approx(0.7**0.9)


def test_the_stable_phase_does_not_depend_on_how_long_a_training_is() -> None:
    schedule = WarmStableDecay(decay_epochs=3, warmup_steps=5)
    for step in range(70):
        assert schedule.factor(step, 10, 100) == schedule.factor(step, 10, 1000)
    assert schedule.factor(85, 10, 100) == pytest.approx(0.5)
    assert schedule.factor(99, 10, 100) == pytest.approx(1 / 30)


def test_adaptivity_counts_negative_epochs_from_the_end() -> None:
    assert Adaptivity((1, 1, 1), from_epoch=-3).starts(10) == 7
    assert Adaptivity((1, 1, 1), from_epoch=10).starts(210) == 10


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


def test_of_certain_maps_the_lovasz_loss_is_1_minus_the_mean_iou_of_the_classes_shown() -> None:
    truth = torch.tensor([[[0, 0, 0, 1], [1, 1, 3, IGNORE]]])
    found = torch.tensor([[[0, 0, 1, 1], [1, 2, 3, 0]]])
    logits = 50.0 * F.one_hot(found, 5).permute(0, 3, 1, 2)
    iou = (2 / 3 + 2 / 4 + 1) / 3  # of classes 0, 1 and 3; class 4 is neither shown nor found
    assert lovasz_softmax(logits, truth, IGNORE) == pytest.approx(1 - iou)


def test_the_lovasz_loss_falls_as_any_pixel_becomes_surer_of_its_class() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 5, 6, generator=random, requires_grad=True)
    truth = torch.randint(0, 4, (2, 5, 6), generator=random)
    loss = lovasz_softmax(logits, truth, IGNORE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert 0 < loss < 1
    assert (logits.grad.gather(1, truth[:, None]) <= 0).all()


def test_the_lovasz_loss_of_an_image_without_a_label_is_nothing() -> None:
    unknown = torch.full((1, 2, 2), IGNORE)
    assert lovasz_softmax(torch.randn(1, 3, 2, 2), unknown, IGNORE) == 0


def test_overlap_adds_the_lovasz_loss_of_the_maps_own_resolution() -> None:
    labels = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(2))
    maps = [torch.randn(1, 3, 2, 2)] * 4
    example = batch(labels.to(torch.uint8))
    plain, more = (per_exit(CrossEntropy(overlap=w), maps, example, step=0) for w in (0.0, 0.5))
    expected = 0.5 * lovasz_softmax(maps[0], labels[:, 2::4, 2::4], IGNORE)
    torch.testing.assert_close(more - plain, expected.expand(4))


def test_a_gaussian_peaks_where_decoding_looks_for_it() -> None:
    joints = torch.tensor([[[13.5, 21.5, 1.0]]])  # the centres of cells 3 and 5
    target = gaussians(joints, (10, 12), sigma=1.5)
    assert target.shape == (1, 1, 10, 12)
    assert target[0, 0, 5, 3] == 1
    assert target.argmax() == 5 * 12 + 3
    assert target[0, 0, 5, 4] == pytest.approx(math.exp(-1 / (2 * 1.5**2)))


def test_unseen_joints_cost_nothing() -> None:
    target = gaussians(torch.tensor([[[9.5, 9.5, 0.0]]]), (6, 6), 2.0)
    assert heatmap_error(torch.randn(1, 1, 6, 6), target, torch.zeros(1, 1), 0.01) == 0


def test_the_localising_term_prefers_a_peak_at_the_joint() -> None:
    target = gaussians(torch.tensor([[[5.5, 5.5, 1.0]]]), (12, 12), 1.0)
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


def test_an_average_follows_the_weights_and_keeps_integers() -> None:
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(3.0)
    network.num_batches_tracked.fill_(7)
    average.update(network, step=100)
    assert average.tensors["weight"].tolist() == [2.0, 2.0]
    assert average.tensors["num_batches_tracked"] == 7


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), seed=st.integers(0, 1000))
def test_an_orthogonalised_matrix_has_singular_values_near_one(
    rows: int, columns: int, seed: int
) -> None:
    q = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, _, v = torch.linalg.svd(q, full_matrices=False)
    values = torch.linspace(0.5, 1.0, min(rows, columns))
    singular = torch.linalg.svdvals(orthogonal(u @ torch.diag(values) @ v))
    assert singular.min() > 0.5
    assert singular.max() < 1.4


def test_muon_descends_and_refuses_a_closure() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, bias=False)
    x, y = torch.randn(8, 4, 6, 6), torch.randn(8, 6, 4, 4)
    optimiser = Muon(list(layer.parameters()), lr=0.02)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(layer(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    with pytest.raises(NotImplementedError, match="no closure"):
        optimiser.step(lambda: 0.0)


def test_every_recipe_names_a_known_layout_and_splits_that_are_not_the_test_set() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.data in LAYOUTS
        assert "test" not in {recipe.split, recipe.check_split}
        assert len(recipe.exit_weights) == NUM_EXITS


def test_a_finish_changes_the_augmentation_of_the_last_epochs_only() -> None:
    recipe = RECIPES["camvid-w18"]
    assert recipe.finish is not None
    first = recipe.epochs - recipe.finish.epochs
    assert recipe.augmentation_of(first - 1) == recipe.augmentation
    assert recipe.augmentation_of(first) == recipe.finish.augmentation
    plain = tiny_recipe()
    assert plain.augmentation_of(plain.epochs - 1) == plain.augmentation
