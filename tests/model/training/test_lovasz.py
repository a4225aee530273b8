"""The Lovász loss against the IoU that it extends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from anytime_model.data.sample import IGNORE
from anytime_model.training.lovasz import lovasz_softmax


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
