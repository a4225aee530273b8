"""Compares the network with reference outputs of the ADP-C authors' published network.

A reference file (.npz) holds the outputs and the recipe of its made-up weights: every tensor is
drawn from a generator seeded by the entry's published name, so that nothing has to be downloaded.
The weights go through the same loader as the authors' own files.
"""

import json
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_model.confidence import Criterion, Entropy, MaximumProbability
from anytime_model.config import NUM_EXITS, NetworkConfig
from anytime_model.errors import CheckpointError
from anytime_model.foreign import from_tensors
from anytime_model.masking import Masks

TOLERANCE = 1e-4
"""Largest error that still agrees, relative to the largest absolute logit of the exit."""


@dataclass(frozen=True, slots=True)
class ExitAgreement:
    """How one exit compares with its reference.

    Attributes:
        exit: 1 to 4.
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


def agree(path: Path) -> tuple[ExitAgreement, ...]:
    """Run the network of a reference file and compare every exit and every mask.

    Raises:
        CheckpointError: the file is not a reference file.
    """
    arrays, meta = _read(path)
    config = NetworkConfig(meta["preset"], meta["classes"], exits=meta["exits"])
    tensors = {
        key: torch.from_numpy(_weights(key, tuple(shape), meta["seed"])) * _factor(meta, key)
        for key, shape in meta["keys"].items()
    }
    network = from_tensors(tensors, config, path).network
    image = torch.from_numpy(_image(tuple(meta["input_shape"]), meta["seed"]))
    with torch.inference_mode():
        states = network(image, _criterion(path, meta))
    results = []
    for state in states:
        reference = arrays[f"exit{state.exit}"]
        error = np.abs(state.logits.numpy() - reference).max() / np.abs(reference).max()
        differing = 0
        if meta["masked"] and state.exit < NUM_EXITS:
            differing = _differing(arrays, state.exit, Masks.pyramid(state.active, 4))
        results.append(ExitAgreement(state.exit, float(error), differing))
    return tuple(results)


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


def _differing(arrays: dict[str, NDArray[Any]], exit_: int, masks: Masks) -> int:
    count = 0
    for (height, width), active in masks.by_size.items():
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
