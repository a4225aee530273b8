"""Which engine runs a model: the one that was asked for, or the fastest that works here.

The choice is explicit, `ANYTIME_ENGINE=auto|torch|native|openvino` or the caller's; only "auto"
ever falls back, and then says once why.
"""

import os
import warnings
from enum import StrEnum

import torch

from anytime_model.checkpoint import Checkpoint
from anytime_model.engines.base import Engine
from anytime_model.engines.fitted import fit
from anytime_model.engines.native import Dtype, NativeEngine
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError
from anytime_model.kernels.library import KernelError

VARIABLE = "ANYTIME_ENGINE"


class EngineKind(StrEnum):
    """What may be asked for."""

    AUTO = "auto"
    TORCH = "torch"
    NATIVE = "native"
    OPENVINO = "openvino"


class EngineFallbackWarning(UserWarning):
    """The native engine cannot run here, so torch does; masks then save no time."""


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
) -> Engine:
    """An engine for a checkpoint, which fits images as its card says.

    Args:
        checkpoint: network and card.
        kind: None asks the environment.
        dtype: what convolutions compute in.
        device: of the torch engine. "auto" on any device but the CPU is torch.

    Raises:
        ConfigError: the kind is unknown, or the openvino package is not installed.
        KernelError: the native engine was asked for by name and cannot run here.
    """
    wanted = kind_from_environment() if kind is None else parse_kind(kind)
    return fit(_make(checkpoint, wanted, dtype, device), checkpoint.card.input_side)


def _make(checkpoint: Checkpoint, wanted: EngineKind, dtype: Dtype, device: str) -> Engine:
    match wanted:
        case EngineKind.NATIVE:
            return NativeEngine(checkpoint, dtype=dtype)
        case EngineKind.OPENVINO:
            return OpenVinoEngine(checkpoint, dtype=dtype)
        case EngineKind.AUTO if torch.device(device).type == "cpu":
            try:
                return NativeEngine(checkpoint, dtype=dtype)
            except KernelError as e:
                warnings.warn(
                    f"falling back to the torch engine, where masks save no time: {e}",
                    EngineFallbackWarning,
                    stacklevel=3,
                )
    return TorchEngine(checkpoint, device, bf16=dtype == "bf16")
