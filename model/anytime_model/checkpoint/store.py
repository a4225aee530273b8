"""Saving and loading of weights: float16 safetensors, described by the manifest beside them.

Loading checks everything that can be wrong before a tensor is used: the file's SHA-256, its
format, and that names and shapes are exactly those of the network in the manifest. Published
checkpoints go through `importer`.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from anytime_model.checkpoint.card import Card
from anytime_model.checkpoint.manifest import read_manifest, write_card
from anytime_model.errors import CheckpointError
from anytime_model.networks.base import Network, build_network

_SHOWN = 5
_NOT_STORED = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network with its weights, in evaluation mode, and its card."""

    network: Network
    card: Card


def save_checkpoint(network: Network, card: Card, folder: Path) -> Card:
    """Write `folder/card.file` and its entry in `folder/manifest.toml`.

    Args:
        network: whose floating tensors are stored as float16.
        card: with everything but the SHA-256, which is filled in. Certificates of other weights are
            left out, and so are ranges for int8.
        folder: made if need be.

    Returns:
        The card as written.

    Raises:
        CheckpointError: a value does not fit into float16, or the card is of another network.
    """
    path = folder / card.file
    if card.config != network.config:
        raise CheckpointError(
            path,
            f"the card is of {card.config}, the network of {network.config}.",
            "Make them equal.",
        )
    tensors = {name: t.detach().half().contiguous() for name, t in _stored(network).items()}
    too_large = [name for name, t in tensors.items() if not t.isfinite().all()]
    if too_large:
        raise CheckpointError(
            path,
            f"{too_large[0]} has values that are not finite in float16.",
            "The training has diverged; use an earlier checkpoint.",
            tuple(too_large[:_SHOWN]),
        )
    content = save(tensors, metadata={"format": "pt"})
    digest = hashlib.sha256(content).hexdigest()
    # A certificate is about the tensors that it names.
    kept = tuple(c for c in card.certificates if c.sha256 == digest)
    int8 = card.int8 if card.int8 and card.int8.sha256 == digest else None
    card = replace(card, sha256=digest, certificates=kept, int8=int8)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    write_card(folder, card)
    return card


def load_checkpoint(path: Path) -> Checkpoint:
    """Load one of our weights files by its path, with the entry of the manifest beside it.

    Raises:
        CheckpointError: the file or its entry is missing, wrong, truncated or of another format.
    """
    cards = read_manifest(path.parent)
    matching = [card for card in cards.values() if card.file == path.name]
    if not matching:
        raise CheckpointError(
            path,
            f"has no entry in the manifest beside it, which has {', '.join(cards) or 'none'}.",
            "Make one with `anytime-model convert`, or move the file back to its manifest.",
        )
    return load_model(matching[0], path.parent)


def load_model(card: Card, folder: Path) -> Checkpoint:
    """Load the weights of a manifest's entry.

    Args:
        card: the entry.
        folder: where manifest and weights are.

    Raises:
        CheckpointError: the file is missing, changed, truncated, or not of the card's network.
    """
    path = folder / card.file
    tensors = _read(path, card)
    network = build_network(card.config)
    wanted = {name: tuple(t.shape) for name, t in _stored(network).items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if found != wanted:
        wrong = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        detail = [f"{n} {found.get(n, 'missing')} for {wanted.get(n, 'nothing')}" for n in wrong]
        raise CheckpointError(
            path,
            f"does not fit the network of its entry: {', '.join(detail[:_SHOWN])}"
            f"{f' and {len(wrong) - _SHOWN} more' if len(wrong) > _SHOWN else ''}.",
            f"Correct the network or the labels of [{card.name}] in the manifest.",
            tuple(wrong[:_SHOWN]),
        )
    network.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=False)
    return Checkpoint(network.eval().requires_grad_(requires_grad=False), card)


def _stored(network: Network) -> dict[str, Tensor]:
    return {n: t for n, t in network.state_dict().items() if not n.endswith(_NOT_STORED)}


def _read(path: Path, card: Card) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise CheckpointError(
            path, f"cannot be read ({e.strerror}).", f"Restore it, or remove [{card.name}]."
        ) from e
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.sha256:
        raise CheckpointError(
            path,
            f"has SHA-256 {digest[:12]}..., its entry [{card.name}] says {card.sha256[:12]}...: "
            "it is truncated or has been changed.",
            "Restore the file, or convert it again.",
        )
    try:
        tensors = load(content)
    except SafetensorError as e:
        raise CheckpointError(
            path, f"is not a safetensors file ({e}).", "Convert it with `anytime-model convert`."
        ) from e
    unfit = [name for name, t in tensors.items() if not (t.is_floating_point() and _finite(t))]
    if unfit:
        raise CheckpointError(
            path,
            f"{unfit[0]} is not a finite floating tensor.",
            "Train or convert again.",
            tuple(unfit),
        )
    return tensors


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
