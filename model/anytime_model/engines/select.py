"""The choice of an engine for a model: the one asked for, or the fastest that works here.

The choice is explicit, `ANYTIME_ENGINE=auto|torch|native|openvino` or the caller's; only "auto"
ever falls back to another engine, and logs a warning that says why.
"""

import logging
import os
from enum import StrEnum

import torch

from anytime_model.checkpoint.store import Checkpoint
from anytime_model.engines.base import Engine, NetworkEngine
from anytime_model.engines.fitted import fit
from anytime_model.engines.native.engine import Dtype, NativeEngine
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError
from anytime_model.kernels.library import KernelError

VARIABLE = "ANYTIME_ENGINE"

logger = logging.getLogger(__name__)


class EngineKind(StrEnum):
    """What may be asked for."""

    AUTO = "auto"
    TORCH = "torch"
    NATIVE = "native"
    OPENVINO = "openvino"


def kind_from_environment() -> EngineKind:
    """What $ANYTIME_ENGINE says; "auto" where it says nothing.

    Raises:
        ConfigError: it says something unknown.
    """
    return parse_kind(os.environ.get(VARIABLE) or EngineKind.AUTO)


def parse_kind(name: str) -> EngineKind:
    """The kind of this name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return EngineKind(name)
    except ValueError as e:
        raise ConfigError(
            f"the engine is {name!r}; expected one of {', '.join(EngineKind)} "
            f"(in {VARIABLE}, or as an argument)."
        ) from e


def make_engine(
    checkpoint: Checkpoint,
    kind: EngineKind | str | None = None,
    *,
    dtype: Dtype = "f32",
    device: str = "cpu",
    memory: MemoryBudget | None = None,
) -> Engine:
    """An engine for a checkpoint, which resizes images as its card says.

    Args:
        checkpoint: network and card.
        kind: None asks the environment.
        dtype: what convolutions compute in.
        device: of the torch engine. "auto" on any device but the CPU is torch.
        memory: bound on the buffers of native engines; by default one of 2 GiB for all engines of
            the process.

    Raises:
        ConfigError: the kind is unknown, or the openvino package is not installed.
        KernelError: the native engine was asked for by name and cannot run here.
    """
    engine = make_network_engine(checkpoint, kind, dtype=dtype, device=device, memory=memory)
    return fit(engine, checkpoint.card.input_side)


def make_network_engine(
    checkpoint: Checkpoint,
    kind: EngineKind | str | None = None,
    *,
    dtype: Dtype = "f32",
    device: str = "cpu",
    memory: MemoryBudget | None = None,
) -> NetworkEngine:
    """An engine for a checkpoint, which runs images at the size at which they come.

    Arguments and errors are those of `make_engine`.
    """
    match kind_from_environment() if kind is None else parse_kind(kind):
        case EngineKind.NATIVE:
            return NativeEngine(checkpoint, dtype=dtype, memory=memory)
        case EngineKind.OPENVINO:
            return OpenVinoEngine(checkpoint, dtype=dtype)
        case EngineKind.AUTO if torch.device(device).type == "cpu":
            try:
                return NativeEngine(checkpoint, dtype=dtype, memory=memory)
            except KernelError as e:
                logger.warning("falling back to the torch engine, where masks save no time: %s", e)
    return TorchEngine(checkpoint, device, bf16=dtype == "bf16")
