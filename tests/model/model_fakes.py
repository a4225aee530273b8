"""Small networks and images that the tests of the model share."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from anytime_model.anytime import AnytimeNetwork
from anytime_model.checkpoint import save_checkpoint
from anytime_model.config import NetworkConfig
from anytime_model.manifest import Card, Label, Masking

GOLDEN = Path(__file__).parent / "golden"


def tiny_network(task="segmentation", exits="redesigned", outputs=5, seed=0, **changes):
    """A network of random weights, in evaluation mode.

    Normalisation is not the identity, and every logit varies by about 2 around 0, so that
    thresholds bite.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = AnytimeNetwork(
        NetworkConfig("tiny", outputs, task=task, exits=exits, **changes)
    ).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("norm.bias", "predict.bias")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            if name.endswith(".lam"):
                parameter.fill_(0.8)
        for exit_, state in zip(network.exits, network(random_image()), strict=True):
            mean = state.logits.mean(dim=(0, 2, 3))
            scale = 2.0 / (state.logits - mean[:, None, None]).std()
            exit_.predict.weight.mul_(scale)
            exit_.predict.bias.sub_(mean).mul_(scale)
    return network.requires_grad_(False)


def random_image(batch=1, height=64, width=96, seed=0):
    """A smooth random normalised batch, (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((batch, 3, height // 16 + 1, width // 16 + 1), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def random_pixels(height=48, width=80, seed=0):
    """An (H, W, 3) uint8 image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiny_card(task="segmentation", outputs=5, name="tiny", **changes):
    """A card for `tiny_network` with the same arguments."""
    masking = (
        Masking("heatmap_maximum", (0.0, 0.0, 0.0))
        if task == "pose"
        else Masking("max_probability", (0.6, 0.6, 0.6))
    )
    return Card(
        name=name,
        file=f"{name}.safetensors",
        sha256=hashlib.sha256(b"").hexdigest(),
        config=NetworkConfig("tiny", outputs, task=task, **changes),
        labels=tuple(Label(f"label {i}", f"#{40 * i:02x}80ff") for i in range(outputs)),
        masking=masking,
        skeleton=((0, 1), (1, 2)) if task == "pose" else (),
        licence="none",
        description="made up for tests",
    )


def save_tiny(folder, task="segmentation", name="tiny", seed=0):
    """Write a tiny checkpoint and its manifest entry; returns its card."""
    return save_checkpoint(tiny_network(task, seed=seed), tiny_card(task, name=name), folder)
