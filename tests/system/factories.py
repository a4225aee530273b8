"""A model that is slow on purpose: a full network of random weights, in which nothing settles."""

from dataclasses import replace

import torch

from anytime_model.checkpoint.card import Masking
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig
from model.factories import tiny_card


def save_slow(folder):
    """Adds the model `slow` (W18) to a folder's manifest."""
    torch.manual_seed(0)
    config = NetworkConfig("w18", 5)
    network = AnytimeNetwork(config).eval().requires_grad_(False)
    nothing_settles = Masking("max_probability", (1.1, 1.1, 1.1))
    card = replace(tiny_card(name="slow"), config=config, masking=nothing_settles)
    return save_checkpoint(network, card, folder)
