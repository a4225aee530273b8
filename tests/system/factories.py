"""Models made up for tests of whole programs: a slow one, and one with a ladder."""

from dataclasses import replace

import torch

from anytime_model.checkpoint.card import Masking, Quality, RungPath
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig
from model.factories import tiny_card, tiny_network


def save_slow(folder):
    """Adds the model `slow` to a folder's manifest: W18 of random weights; nothing settles.

    Images are brought to 960 px, so that 5 ms are too little for its first exit on any CPU.
    """
    torch.manual_seed(0)
    config = NetworkConfig("w18", 5)
    network = AnytimeNetwork(config).eval().requires_grad_(False)
    nothing_settles = Masking("max_probability", (1.1, 1.1, 1.1))
    card = replace(tiny_card(name="slow"), config=config, masking=nothing_settles, sides=(960,))
    return save_checkpoint(network, card, folder)


def save_ladder(folder):
    """Adds the model `ladder` to a folder's manifest: 64 and 128 px; exits 3 and 4 never pay."""
    path = RungPath((1, 2, 5, 6, 7, 8), (0.1, 0.2, 0.5, 0.6, 0.7, 0.8))
    measured = Quality("mIoU", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "none", paths=(path,))
    card = replace(tiny_card(name="ladder"), sides=(64, 128), quality=measured)
    return save_checkpoint(tiny_network(), card, folder)
