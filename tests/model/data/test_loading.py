"""A batch is a function of the seed, the epoch and its place; workers and processes change none."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anytime_model.data.augment import SegmentationAugmentation
from anytime_model.data.camvid import CamVid
from anytime_model.data.loading import (
    AugmentedSet,
    Batch,
    EpochOrder,
    epoch_batches,
    normalise,
    steps_per_epoch,
)
from model.data_factories import camvid_tree


def batches(root: Path, workers: int = 0, **order: int) -> list[Batch]:
    source = CamVid(root, "train")
    pipeline = SegmentationAugmentation((32, 32), (0.8, 1.2), colour=0.3).build()
    data = AugmentedSet(source, lambda _: pipeline, seed=5)
    settings = {"batch": 4, "epoch": 0, "seed": 5} | order
    return list(epoch_batches(data, EpochOrder(len(source), **settings), workers))


def test_a_worker_makes_the_batches_that_the_main_process_would(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    for here, there in zip(batches(root), batches(root, workers=1), strict=True):
        assert here.names == there.names
        assert torch.equal(here.images, there.images)


def test_an_epoch_that_begins_in_the_middle_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    whole, rest = batches(root), batches(root, first_step=3)
    assert [b.names for b in rest] == [b.names for b in whole[3:]]
    assert torch.equal(rest[0].images, whole[3].images)


def test_two_epochs_differ_in_order_and_augmentation(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    first, second = batches(root), batches(root, epoch=1)
    assert [b.names for b in first] != [b.names for b in second]


@given(
    size=st.integers(1, 200),
    share=st.integers(1, 6),
    world=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_processes_share_each_batch_without_overlap(
    size: int, share: int, world: int, epoch: int
) -> None:
    batch = share * world
    alone = list(EpochOrder(size, batch, epoch, seed=1))
    parts = [list(EpochOrder(size, batch, epoch, 1, rank, world)) for rank in range(world)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == alone
    assert len(alone) == steps_per_epoch(size, batch)
    if size >= batch:
        seen = [index for step in alone for _, index in step]
        assert len(set(seen)) == len(seen)


def test_normalised_images_have_mean_zero_where_they_are_imagenets_mean() -> None:
    mean = torch.tensor([123.675, 116.28, 103.53]).round().to(torch.uint8)
    x = normalise(mean.view(1, 3, 1, 1).expand(1, 3, 4, 4))
    assert x.abs().max() < 0.02
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [1, 3])
def test_a_set_smaller_than_a_batch_is_wrapped_around(size: int) -> None:
    (step,) = list(EpochOrder(size, 4, 0, seed=0))
    assert len(step) == 4
    assert {index for _, index in step} == set(range(size))
