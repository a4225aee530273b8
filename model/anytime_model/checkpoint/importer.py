"""Import of published checkpoints: the ADP-C authors' and HRNet's files as networks of ours.

No pickled code is run: files are read with PyTorch's restricted loader, or as safetensors. Entries
that are missing, unknown or of another shape are an error that names them. What a file rightly
does not bring (the early exits, in a backbone's file) is left as initialised and reported as
untrained.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from anytime_model.checkpoint.key_map import Names, Source, is_ignorable, recognise
from anytime_model.errors import CheckpointError
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.tasks import TASKS

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Imported:
    """A network built from a published checkpoint.

    Attributes:
        network: with the file's tensors in place, in evaluation mode.
        source: where the file comes from.
        untrained: our entries that the file does not bring.
    """

    network: AnytimeNetwork
    source: Source
    untrained: tuple[str, ...]

    @property
    def untrained_parts(self) -> tuple[str, ...]:
        """The parts that need training, such as "exit 1" or "lambda of the masked convolutions"."""
        return tuple(sorted({_part(name) for name in self.untrained}))


def _part(name: str) -> str:
    """The part of the network that an entry belongs to, such as "exit 1"."""
    if name.endswith(".lam"):
        return "lambda of the masked convolutions"
    if name.startswith("exits."):
        return f"exit {int(name.split('.')[1]) + 1}"
    return name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a published file, without running any code from it.

    Args:
        path: a PyTorch checkpoint (a state dictionary, or a dictionary that holds one), or
            safetensors.

    Returns:
        Entries by name, without the prefixes `module.` and `model.`.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint, or in need of unpickling code.
    """
    if not path.is_file():
        raise CheckpointError(path, "there is no such file.", "Check the path.")
    try:
        content = _load(path)
    except Exception as e:
        raise CheckpointError(
            path,
            f"cannot be read as a checkpoint of plain tensors ({_first_line(e)}).",
            "It may be truncated, no checkpoint, or hold pickled code, which is never run here: "
            "download it again, or save only its state dictionary.",
        ) from e
    tensors = _tensors_in(content)
    if not tensors:
        raise CheckpointError(
            path,
            "holds no tensors.",
            "Give a file with a state dictionary, such as an HRNet .pth file.",
        )
    return {_without_prefix(key): value for key, value in tensors.items()}


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # remarks on pickle versions
        return torch.load(path, map_location="cpu", weights_only=True)


def import_checkpoint(path: Path, config: NetworkConfig) -> Imported:
    """Build the network that `config` describes from a published checkpoint file.

    Raises:
        CheckpointError: see `read_tensors` and `from_tensors`.
    """
    return from_tensors(read_tensors(path), config, path)


def from_tensors(tensors: Mapping[str, Tensor], config: NetworkConfig, path: Path) -> Imported:
    """Build a network from published entries.

    Args:
        tensors: entries by published name, without prefixes.
        config: the network to build.
        path: where the entries come from, for messages.

    Raises:
        CheckpointError: the keys are of no known network, or entries are missing, unknown or
            misshapen.
    """
    keys = frozenset(tensors)
    source = recognise(keys)
    if source is Source.UNKNOWN:
        raise CheckpointError(
            path,
            f"its keys ({_some(sorted(keys))}) are not those of an HRNet.",
            "Give an ADP-C or HRNet checkpoint. Our own .safetensors need no conversion.",
            tuple(sorted(keys)[:_SHOWN]),
        )
    network = AnytimeNetwork(config)
    names = Names(config, keys)
    wanted = {
        ours: names.of(ours)
        for ours in network.state_dict()
        if not ours.endswith("num_batches_tracked")
    }
    missing = {ours: theirs for ours, theirs in wanted.items() if theirs not in tensors}
    untrained = {ours for ours in missing if _may_be_missing(ours, source, missing, wanted)}
    hopeless = sorted(missing[ours] for ours in missing.keys() - untrained)
    if hopeless:
        raise _mismatch(path, source, config, "has no entry", hopeless)
    known = set(wanted.values())
    if not source.brings_exits:
        known |= {key for key in keys if key.startswith(("last_layer.", "final_layer."))}
        finest_alone = not TASKS[config.task].combines_branches
        known |= {key for key in keys if finest_alone and key.startswith("stage4.")}
    unknown = sorted(key for key in keys - known if not is_ignorable(key, source))
    if unknown:
        raise _mismatch(path, source, config, "has unknown entries", unknown)
    entries = {ours: tensors[theirs] for ours, theirs in wanted.items() if ours not in missing}
    own = network.state_dict()
    misshapen = {ours for ours, tensor in entries.items() if tensor.shape != own[ours].shape}
    replaceable = {n for n in misshapen if not source.brings_exits and n.startswith("exits.")}
    if misshapen - replaceable:
        shown = [
            f"{wanted[n]} {tuple(entries[n].shape)} instead of {tuple(own[n].shape)}"
            for n in sorted(misshapen - replaceable)
        ]
        raise _mismatch(path, source, config, "has entries of another shape", shown)
    network.load_state_dict(
        {n: t.float() for n, t in entries.items() if n not in replaceable}, strict=False
    )
    return Imported(network.eval(), source, tuple(sorted(untrained | replaceable)))


def _may_be_missing(
    ours: str, source: Source, missing: Mapping[str, str], wanted: Mapping[str, str]
) -> bool:
    """Lambdas may be missing all together (trained without masks), exits from a backbone."""
    if ours.endswith(".lam"):
        return all(name in missing for name in wanted if name.endswith(".lam"))
    return ours.startswith("exits.") and not source.brings_exits


def _tensors_in(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            return _tensors_in(content[wrapper])
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _without_prefix(key: str) -> str:
    for prefix in ("module.", "model."):
        key = key.removeprefix(prefix)
    return key


def _mismatch(
    path: Path, source: Source, config: NetworkConfig, problem: str, keys: list[str]
) -> CheckpointError:
    return CheckpointError(
        path,
        f"looks like {source.value} but {problem}: {_some(keys)}.",
        f"Expected {config.preset} with {config.outputs} outputs, {config.exits} exits, "
        f"task {config.task}; "
        "check --preset, --outputs, --exits and --task, or download the file again.",
        tuple(keys[:_SHOWN]),
    )


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:120]
