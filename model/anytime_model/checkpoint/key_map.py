"""The names of tensors in published checkpoints of HRNet, for each tensor of our network.

The published files are the ADP-C authors', and HRNet's for segmentation, pose and ImageNet. Which
of them a file is follows from its names. `importer` reads the files.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from anytime_model.networks.hrnet.config import NetworkConfig

_LEAVES = {"lam": "Lambda"}
_CONV_NORM = {"conv": 0, "norm": 1}


class Source(Enum):
    """Where a published checkpoint comes from, recognised by its keys."""

    ADPC = "the ADP-C authors' anytime network"
    SEGMENTATION = "an HRNet segmentation network"
    POSE = "an HRNet pose network"
    IMAGENET = "an HRNet ImageNet classifier"
    UNKNOWN = "no known HRNet file"

    @property
    def brings_exits(self) -> bool:
        """Whether the early exits are in the file."""
        return self is Source.ADPC


def recognise(keys: frozenset[str]) -> Source:
    """Tell the source of a checkpoint from its keys, without any `model.` prefix."""
    heads = {key.split(".", 1)[0] for key in keys}
    if not {"conv1", "layer1", "stage2"} <= heads:
        return Source.UNKNOWN
    if "exit1" in heads:
        return Source.ADPC
    if "classifier" in heads:
        return Source.IMAGENET
    if "last_layer" in heads:
        return Source.SEGMENTATION
    return Source.POSE if "final_layer" in heads else Source.UNKNOWN


def is_ignorable(key: str, source: Source) -> bool:
    """Whether a published entry rightly has no counterpart here.

    Those are constants of the authors' interpolation, buffers of a training loss, and the heads of
    classifiers.
    """
    leaf = key.rsplit(".", 1)[-1]
    if leaf in {"square_dis", "num_batches_tracked"} or key.startswith("loss."):
        return True
    classifier = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
    return source is Source.IMAGENET and key.startswith(classifier)


@dataclass(frozen=True, slots=True)
class Names:
    """Published names of one network's entries.

    Attributes:
        config: the network, whose exits decide the numbering inside them.
        keys: the published checkpoint's keys, which decide between spellings of the last layer.
    """

    config: NetworkConfig
    keys: frozenset[str]

    def of(self, ours: str) -> str:
        """The published name of our entry `ours`, such as `stages.0.stem.0.conv.weight`."""
        layer, leaf = ours.rsplit(".", 1)
        return f"{self._layer(layer)}.{_LEAVES.get(leaf, leaf)}"

    def _layer(self, layer: str) -> str:
        for pattern, rename in _LAYERS.items():
            found = pattern.fullmatch(layer)
            if found:
                return rename(found)
        _, index, inner = layer.split(".", 2)
        return self._exit(int(index), inner)

    def _exit(self, index: int, inner: str) -> str:
        last = self.config.num_exits - 1
        if index == last:
            name = "final_layer" if "final_layer.weight" in self.keys else "last_layer"
        else:
            name = f"exit{index + 1}"
        if inner == "predict" and f"{name}.weight" in self.keys:
            return name
        redesigned = index < last and self.config.exits == "redesigned"
        depth = self.config.depths[index] if redesigned else 0
        return f"{name}.{_exit_number(inner, depth)}"


def _exit_number(inner: str, depth: int) -> int:
    """Position of a layer in the authors' flat exit.

    A redesigned exit repeats (pool or upsample, convolution, norm, ReLU), so its layers sit at
    multiples of four; an original one is (convolution, norm, ReLU, convolution).
    """
    if inner == "predict":
        return 4 * (2 * depth - 1) + 1 if depth else 3
    kind, *rest = inner.split(".")
    if kind == "mix":
        return _CONV_NORM[rest[0]]
    block = int(rest[0]) + (depth if kind == "decoder" else 0)
    return 4 * block + 1 + _CONV_NORM[rest[1]]


def _unit(found: re.Match[str]) -> str:
    """`conv2`, `bn2` for our `conv2.conv`, `conv2.norm`."""
    prefix = "conv" if found["part"] == "conv" else "bn"
    return f"{prefix}{found['n']}"


_PART = r"(?P<part>conv|norm)"
_LAYERS: Mapping[re.Pattern[str], Callable[[re.Match[str]], str]] = {
    re.compile(pattern): rename
    for pattern, rename in {
        rf"stages\.0\.stem\.(?P<n>\d)\.{_PART}": lambda m: (
            f"{'conv' if m['part'] == 'conv' else 'bn'}{int(m['n']) + 1}"
        ),
        rf"stages\.0\.blocks\.(?P<b>\d)\.conv(?P<n>\d)\.{_PART}": lambda m: (
            f"layer1.{m['b']}.{_unit(m)}"
        ),
        rf"stages\.0\.blocks\.(?P<b>\d)\.shortcut\.{_PART}": lambda m: (
            f"layer1.{m['b']}.downsample.{_CONV_NORM[m['part']]}"
        ),
        rf"stages\.(?P<s>\d)\.transition\.keep\.(?P<b>\d)\.{_PART}": lambda m: (
            f"transition{m['s']}.{m['b']}.{_CONV_NORM[m['part']]}"
        ),
        rf"stages\.(?P<s>\d)\.transition\.grow\.{_PART}": lambda m: (
            f"transition{m['s']}.{m['s']}.0.{_CONV_NORM[m['part']]}"
        ),
        rf"stages\.(?P<s>\d)\.fusion_modules\.(?P<m>\d)\.branches\.(?P<b>\d)\.(?P<k>\d)"
        rf"\.conv(?P<n>\d)\.{_PART}": lambda m: (
            f"stage{int(m['s']) + 1}.{m['m']}.branches.{m['b']}.{m['k']}.{_unit(m)}"
        ),
        rf"stages\.(?P<s>\d)\.fusion_modules\.(?P<m>\d)\.fusions\.(?P<t>\d)\.sources\.(?P<f>\d)"
        rf"\.conv\.{_PART}": lambda m: (
            f"stage{int(m['s']) + 1}.{m['m']}.fuse_layers.{m['t']}.{m['f']}.{_CONV_NORM[m['part']]}"
        ),
        rf"stages\.(?P<s>\d)\.fusion_modules\.(?P<m>\d)\.fusions\.(?P<t>\d)\.sources\.(?P<f>\d)"
        rf"\.chain\.(?P<c>\d)\.{_PART}": lambda m: (
            f"stage{int(m['s']) + 1}.{m['m']}.fuse_layers.{m['t']}.{m['f']}.{m['c']}."
            f"{_CONV_NORM[m['part']]}"
        ),
    }.items()
}
