"""The choice of an engine for a model: the one asked for, or the fastest that works here.

The choice is explicit, `ANYTIME_ENGINE=auto|torch|native|openvino` or the caller's; only "auto"
ever falls back to another engine, and logs a warning that says why. A family that the native
kernels have no program for runs with OpenVINO where that is installed and has graphs for it, else
with torch; that is no fault and logs nothing.
"""

import logging
import os
from contextlib import suppress
from enum import StrEnum
from importlib.util import find_spec
from typing import get_args

from anytime_model.checkpoint.card import Card
from anytime_model.checkpoint.store import Checkpoint
from anytime_model.engines.base import Dtype, NetworkEngine
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.native.engine import NativeEngine, dtypes_by_speed
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, FamilyError
from anytime_model.kernels.library import KernelError

MOST_LOSS = 0.005
"""Of a metric from 0 to 1, that "auto" gives up at an exit for speed."""

VARIABLE = "ANYTIME_ENGINE"

logger = logging.getLogger(__name__)


class EngineKind(StrEnum):
    """What may be asked for."""

    AUTO = "auto"
    TORCH = "torch"
    NATIVE = "native"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """What convolutions may be asked to compute in."""

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


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


def choose_dtype(precision: Precision | str, card: Card | None = None) -> Dtype:
    """The type that convolutions compute in.

    "auto" is the one that this CPU multiplies fastest of those that keep the card's quality: int8
    only where that was measured and no exit loses more than `MOST_LOSS`.

    Raises:
        ConfigError: no such precision.
    """
    try:
        chosen = Precision(precision)
    except ValueError as e:
        raise ConfigError(
            f"the precision is {precision!r}; expected one of {', '.join(Precision)}."
        ) from e
    if chosen is not Precision.AUTO:
        return next(dtype for dtype in get_args(Dtype) if dtype == chosen)
    return next(d for d in dtypes_by_speed() if d != "int8" or _keeps_quality_in_int8(card))


def _keeps_quality_in_int8(card: Card | None) -> bool:
    whole, quantised = (None, None) if card is None else (card.quality, card.quality_in("int8"))
    return (
        whole is not None
        and quantised is not None
        and whole.dataset == quantised.dataset
        and all(
            round(exact - ours, 4) <= MOST_LOSS
            for exact, ours in zip(whole.per_exit, quantised.per_exit, strict=True)
        )
    )


def make_engine(
    checkpoint: Checkpoint,
    kind: EngineKind | str | None = None,
    *,
    precision: Precision | str = Precision.AUTO,
    device: str = "cpu",
    memory: MemoryBudget | None = None,
) -> LadderEngine:
    """An engine for a checkpoint, which brings images to the sizes that its card names.

    Args:
        checkpoint: network and card.
        kind: None asks the environment.
        precision: what convolutions compute in.
        device: of the torch engine. "auto" on any device but the CPU is torch.
        memory: bound on the buffers of native engines; by default one of 2 GiB for all engines of
            the process.

    Raises:
        ConfigError: the kind, precision or device is unknown or not to be had here, or the
            openvino package is not installed.
        KernelError: the native engine was asked for by name and cannot run here.
        FamilyError: an engine was asked for by name that cannot run this family.
    """
    return LadderEngine(
        make_network_engine(checkpoint, kind, precision=precision, device=device, memory=memory)
    )


def make_network_engine(
    checkpoint: Checkpoint,
    kind: EngineKind | str | None = None,
    *,
    precision: Precision | str = Precision.AUTO,
    device: str = "cpu",
    memory: MemoryBudget | None = None,
) -> NetworkEngine:
    """An engine for a checkpoint, which runs images at the size at which they come.

    Arguments and errors are those of `make_engine`.
    """
    kind = kind_from_environment() if kind is None else parse_kind(kind)
    on_cpu = device.partition(":")[0] == "cpu"
    native = kind is EngineKind.NATIVE or (kind is EngineKind.AUTO and on_cpu)
    dtype = choose_dtype(precision, checkpoint.card if native else None)
    if dtype == "int8":
        if native:
            return NativeEngine(checkpoint, dtype=dtype, memory=memory)
        raise ConfigError(
            f"the engine {kind} on {device} does not compute in int8; expected the native engine "
            "on the CPU. Choose it, or f32."
        )
    match kind:
        case EngineKind.NATIVE:
            return NativeEngine(checkpoint, dtype=dtype, memory=memory)
        case EngineKind.OPENVINO:
            return OpenVinoEngine(checkpoint, dtype=dtype)
        case EngineKind.AUTO if on_cpu:
            try:
                return NativeEngine(checkpoint, dtype=dtype, memory=memory)
            except FamilyError:
                if find_spec("openvino") is not None:
                    with suppress(FamilyError):
                        return OpenVinoEngine(checkpoint, dtype=dtype)
            except KernelError as e:
                logger.warning("falling back to the torch engine, where masks save no time: %s", e)
    return TorchEngine(checkpoint, device, bf16=dtype == "bf16")
