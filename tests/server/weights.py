"""Networks at toy size with random weights, in files as they are shipped."""

from pathlib import Path

import torch

from anytime_model.checkpoint import Card, Label, Masking, Quality, save_checkpoint
from anytime_model.networks.hrnet import AnytimeNetwork, NetworkConfig


def make_weights(folder: Path, preset: str = "tiny") -> Path:
    """A folder with a segmentation model, `street`, and a pose model, `pose`."""
    torch.manual_seed(0)
    street = NetworkConfig(preset=preset, outputs=5)
    pose = NetworkConfig(preset=preset, outputs=3, task="pose")
    quality = Quality("mIoU", (0.5, 0.6, 0.7, 0.8), "made up")
    cards = [
        Card("street", "street.safetensors", "", street, _labels(5), quality=quality),
        Card("pose", "pose.safetensors", "", pose, _labels(3), skeleton=((0, 1),)),
    ]
    maskings = [Masking("max_probability", (0.6,) * 3), Masking("heatmap_maximum", (0.0,) * 3)]
    for card, masking in zip(cards, maskings, strict=True):
        values = {name: getattr(card, name) for name in card.__slots__}
        save_checkpoint(AnytimeNetwork(card.config), Card(**values | {"masking": masking}), folder)
    return folder


def _labels(count: int) -> tuple[Label, ...]:
    return tuple(Label(f"label {k}", f"#{40 * k:02x}80ff") for k in range(count))
