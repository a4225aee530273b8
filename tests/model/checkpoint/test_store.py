"""Weights files: round trips, and every way to be wrong."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from anytime_model.checkpoint.store import load_checkpoint, load_model, save_checkpoint
from anytime_model.errors import CheckpointError
from model.factories import random_image, save_tiny, tiny_card, tiny_network


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_network_comes_back_as_it_was_saved(tmp_path, task):
    network = tiny_network(task)
    card = save_checkpoint(network, tiny_card(task), tmp_path)
    loaded = load_checkpoint(tmp_path / card.file)
    assert loaded.card == card
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded.network.state_dict()[name], tensor.half().float()), name
    assert not loaded.network.training
    assert loaded.network(random_image())[-1].logits.isfinite().all()


def test_a_file_holds_half_precision_only(tmp_path):
    card = save_tiny(tmp_path)
    size = (tmp_path / card.file).stat().st_size
    numbers = sum(t.numel() for t in tiny_network().state_dict().values())
    assert size < 2 * numbers + 100_000


def test_a_truncated_file_is_told_by_its_digest(tmp_path):
    path = tmp_path / save_tiny(tmp_path).file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"SHA-256.*truncated or has been changed") as e:
        load_checkpoint(path)
    assert e.value.path == path


def test_a_file_without_entry_is_refused(tmp_path):
    path = tmp_path / save_tiny(tmp_path).file
    other = path.rename(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no entry"):
        load_checkpoint(other)


def test_a_missing_file_is_refused(tmp_path):
    card = save_tiny(tmp_path)
    (tmp_path / card.file).unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / card.file)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    card = save_tiny(tmp_path)
    (tmp_path / card.file).write_bytes(b"no tensors")
    card = replace(card, sha256=hashlib.sha256(b"no tensors").hexdigest())
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(card, tmp_path)


def test_a_card_of_another_network_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="Make them equal"):
        save_checkpoint(tiny_network(), tiny_card(exits="original"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e6])
def test_a_diverged_network_is_not_saved(tmp_path, value):
    network = tiny_network()
    network.exits[0].predict.bias.fill_(value)
    with pytest.raises(CheckpointError, match="diverged"):
        save_checkpoint(network, tiny_card(), tmp_path)
