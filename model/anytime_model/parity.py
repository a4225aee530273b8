"""Comparison with reference outputs of the ADP-C authors' published network.

A reference file (.npz) holds the outputs and the recipe of its made-up weights: every tensor is
drawn from a generator seeded by the entry's published name, so that nothing has to be downloaded.
The weights go through the same loader as the authors' own files.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_model.checkpoint.importer import from_tensors
from anytime_model.confidence import Criterion, Entropy, MaximumProbability
from anytime_model.errors import CheckpointError
from anytime_model.networks.base import Network
from anytime_model.networks.hrnet.config import NetworkConfig

TOLERANCE = 1e-4
"""Largest error that still agrees, relative to the largest absolute logit of the exit."""


@dataclass(frozen=True, slots=True)
class ExitParity:
    """How one exit compares with its reference.

    Attributes:
        exit: number of the exit, from 1.
        relative_error: largest absolute difference over the largest absolute reference logit.
        differing: mask positions, over all resolutions, on which the two disagree.
    """

    exit: int
    relative_error: float
    differing: int

    @property
    def agrees(self) -> bool:
        """Whether the error is within tolerance and the masks are identical."""
        return self.relative_error <= TOLERANCE and self.differing == 0


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference file: a network with its made-up weights, an input, and what should come out.

    Attributes:
        network: in evaluation mode.
        image: (1, 3, H, W) float32, normalised.
        criterion: that the reference was masked with, or None.
        outputs: arrays of the file: maps (1, K, h, w) and packed masks.
    """

    network: Network
    image: Tensor
    criterion: Criterion | None
    outputs: Mapping[str, NDArray[Any]]

    def compare(self, exit_: int, logits: NDArray[Any], active: Tensor | None) -> ExitParity:
        """Compare one exit.

        Args:
            exit_: its number, from 1.
            logits: (K, h, w), its aggregated map.
            active: (1, 1, h, w) boolean, where the next stage computes; None leaves masks out.
        """
        reference = self.outputs[f"exit{exit_}"][0]
        error = np.abs(logits - reference).max() / np.abs(reference).max()
        differing = 0
        early = exit_ < self.network.config.num_exits
        if early and self.criterion is not None and active is not None:
            differing = _differing(self.outputs, exit_, self.network.masks(active))
        return ExitParity(exit_, float(error), differing)


def load_reference(path: Path) -> Reference:
    """Read a reference file and build its network.

    Raises:
        CheckpointError: the file is not a reference file.
    """
    arrays, meta = _read(path)
    config = NetworkConfig(meta["preset"], meta["classes"], exits=meta["exits"])
    tensors = {
        key: torch.from_numpy(_weights(key, tuple(shape), meta["seed"])) * _factor(meta, key)
        for key, shape in meta["keys"].items()
    }
    return Reference(
        from_tensors(tensors, config, path).network,
        torch.from_numpy(_image(tuple(meta["input_shape"]), meta["seed"])),
        _criterion(path, meta),
        arrays,
    )


def agree(path: Path) -> tuple[ExitParity, ...]:
    """Run the network of a reference file and compare every exit and every mask.

    Raises:
        CheckpointError: the file is not a reference file.
    """
    reference = load_reference(path)
    with torch.inference_mode():
        states = reference.network(reference.image, reference.criterion)
    return tuple(
        reference.compare(state.exit, state.logits[0].numpy(), state.active) for state in states
    )


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    cure = "Give a reference file (.npz): arrays exit1 to exit4, masks, and a JSON `meta`."
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays["meta"].tobytes())
        _ = [
            meta[k] for k in ("preset", "classes", "exits", "seed", "keys", "input_shape", "masked")
        ]
    except FileNotFoundError as e:
        raise CheckpointError(path, "there is no such file.", cure) from e
    except KeyError as e:
        raise CheckpointError(path, f"has no {e} in its description.", cure) from e
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise CheckpointError(path, f"is no reference file ({e}).", cure) from e
    return arrays, meta


def _criterion(path: Path, meta: dict[str, Any]) -> Criterion | None:
    if not meta["masked"]:
        return None
    kinds: dict[str, type[MaximumProbability | Entropy]] = {
        "max_probability": MaximumProbability,
        "entropy": Entropy,
    }
    if meta["criterion"] not in kinds:
        raise CheckpointError(
            path, f"has the criterion {meta['criterion']!r}.", f"Known are {', '.join(kinds)}."
        )
    return kinds[meta["criterion"]](meta["threshold"])


def _differing(
    arrays: Mapping[str, NDArray[Any]], exit_: int, masks: Mapping[tuple[int, int], Tensor]
) -> int:
    count = 0
    for (height, width), active in masks.items():
        packed = arrays.get(f"active_after_{exit_}_{height}x{width}")
        if packed is not None:
            ours = active.numpy().ravel()
            reference = np.unpackbits(packed, count=ours.size).astype(bool)
            count += int((ours != reference).sum())
    return count


def _factor(meta: dict[str, Any], key: str) -> float:
    return float(meta.get("scaled", {}).get(key, 1.0))


def _weights(name: str, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """The made-up value of one published entry, drawn after its name and shape."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + 1_000_003 * seed))
    match name.rsplit(".", 1)[-1], len(shape):
        case "num_batches_tracked", _:
            value: NDArray[Any] = np.zeros(shape)
        case "square_dis", _:
            value = np.zeros(shape)
        case "Lambda", _:
            value = np.asarray(rng.uniform(0.5, 1.5))
        case "running_var", _:
            value = rng.uniform(0.5, 1.5, shape)
        case "weight", 4:
            value = rng.standard_normal(shape) * np.sqrt(2.0 / math.prod(shape[1:]))
        case "weight", _:
            value = rng.uniform(0.3, 0.7, shape)
        case _:
            value = 0.1 * rng.standard_normal(shape)
    return value.astype(np.float32).reshape(shape)


def _image(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """A smooth random normalised image: noise in blocks of 16 px, and a little per pixel."""
    rng = np.random.Generator(np.random.PCG64(seed + 77))
    batch, channels, height, width = shape
    coarse = rng.standard_normal((batch, channels, height // 16, width // 16)).astype(np.float32)
    fine = rng.standard_normal(shape).astype(np.float32)
    blocks = np.repeat(np.repeat(coarse, 16, axis=2), 16, axis=3)
    return (blocks + 0.2 * fine).astype(np.float32)
