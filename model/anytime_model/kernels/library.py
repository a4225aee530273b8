"""The compiled kernels in Python: loading, calls of the C interface, and errors instead of codes.

The C interface is that of native/api.h. Other threads run during every call.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint8, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from anytime_model.errors import AnytimeModelError
from anytime_model.kernels.build import SOURCES, BuildOptions, library_path
from anytime_model.kernels.cpus import usable_cpus

ABI = 8
TERMS = 4
OUT_OF_MEMORY = -2
Dtype = Literal["f32", "bf16", "int8"]
"""What convolutions compute in."""
ELEMENT_BYTES: dict[Dtype, int] = {"f32": 4, "bf16": 2, "int8": 1}
"""Of an activation, by what convolutions compute in."""

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class KernelError(AnytimeModelError):
    """Root of what goes wrong in the native kernels."""


class NotBuiltError(KernelError):
    """There is no library for these sources on this machine."""


class OutOfMemoryError(KernelError):
    """The kernels could not get the memory that a model or an image size needs."""


class Kind(IntEnum):
    """What an operation does."""

    CONV = 0
    INTERPOLATE = 1
    WEIGHTED_SUM = 2


class Where(IntEnum):
    """At which positions an operation puts something out."""

    ACTIVE = 0
    NEEDED = 1
    EVERYWHERE = 2


class Activation(IntEnum):
    """What an operation's sums go through."""

    NONE = 0
    RELU = 1
    RELU6 = 2


class Storage(IntEnum):
    """What holds a slot: with the plan, with the run, or only within a fused group.

    A WINDOW holds some rows at a time of what is used only within a row tiling; what is HELD lies
    in a cache, from one frame of a video to the next.
    """

    SCRATCH = 0
    RUN = 1
    LOCAL = 2
    WINDOW = 3
    HELD = 4


class Measure(IntEnum):
    """What is measured of a map at each position."""

    PROBABILITY = 0
    ENTROPY = 1
    MAXIMUM = 2


class Slot(ctypes.Structure):
    """A buffer of a plan; see AnytimeSlot in api.h."""

    _fields_: ClassVar = [
        (name, c_int32) for name in ("level", "channels", "floats", "storage", "zero")
    ]


class Op(ctypes.Structure):
    """An operation of a plan; see AnytimeOp in api.h."""

    _fields_: ClassVar = [
        *(
            (name, c_int32)
            for name in (
                *("kind", "where", "conv", "norm", "activation", "keep"),
                *("out", "first", "residual", "pool", "fused", "tiled", "inputs"),
            )
        ),
        ("sources", c_int32 * TERMS),
        ("residual_scale", c_float),
        ("scales", c_float * TERMS),
    ]


_HANDLE = c_void_p
_FLOATS, _BYTES = POINTER(c_float), POINTER(c_uint8)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "abi": (c_int32, []),
    "error": (c_char_p, []),
    "isa": (c_char_p, [c_int32]),
    "isa_works": (c_int32, [c_int32]),
    "threads": (c_int32, [c_int32]),
    "peak": (c_double, [c_int32]),
    "model_new": (_HANDLE, [c_int32]),
    "model_free": (None, [_HANDLE]),
    "model_conv": (c_int32, [_HANDLE, _FLOATS, *(c_int32,) * 7]),
    "model_depthwise": (c_int32, [_HANDLE, _FLOATS, *(c_int32,) * 3]),
    "model_norm": (c_int32, [_HANDLE, _FLOATS, _FLOATS, _FLOATS, _FLOATS, c_int32]),
    "plan_new": (
        _HANDLE,
        [
            *(_HANDLE, c_int32, c_int32, POINTER(Slot), c_int32),
            *(POINTER(Op), c_int32, POINTER(c_int32), POINTER(c_int32), c_int32),
        ],
    ),
    "plan_free": (None, [_HANDLE]),
    "plan_bytes": (c_int64, [_HANDLE]),
    "plan_run_bytes": (c_int64, [_HANDLE]),
    "run_new": (_HANDLE, [_HANDLE]),
    "run_free": (None, [_HANDLE]),
    "run_bytes": (c_int32, [_HANDLE, _BYTES, c_int32, c_int32, _FLOATS, _FLOATS]),
    "run_floats": (c_int32, [_HANDLE, _FLOATS, c_int32, c_int32]),
    "run_advance": (c_int32, [_HANDLE, c_int32, c_int64]),
    "run_settle": (c_int32, [_HANDLE, c_int32, c_int32, c_float, c_float]),
    "run_mask": (c_int32, [_HANDLE, _BYTES]),
    "run_prior": (c_int32, [_HANDLE, _FLOATS, _BYTES]),
    "cache_new": (_HANDLE, [_HANDLE]),
    "cache_free": (None, [_HANDLE]),
    "cache_bytes": (c_int64, [_HANDLE]),
    "run_hold": (c_int32, [_HANDLE, _HANDLE, _BYTES]),
    "run_read": (c_int32, [_HANDLE, _FLOATS, _FLOATS, _BYTES]),
    "run_read_slot": (c_int32, [_HANDLE, c_int32, _FLOATS]),
    "run_operation": (c_int32, [_HANDLE]),
    "run_macs": (c_int64, [_HANDLE]),
    "resize": (c_int32, [c_int32, _BYTES, *(c_int32,) * 4, _BYTES]),
    "decode": (
        c_int32,
        [c_int32, _FLOATS, *(c_int32,) * 3, *(c_int64,) * 3, c_int32, c_int32, _BYTES],
    ),
}


@dataclass(frozen=True, slots=True)
class Library:
    """The loaded kernels.

    Attributes:
        path: the shared library.
        isas: instruction sets that this CPU can run, fastest first.
    """

    path: Path
    isas: tuple[str, ...]
    functions: dict[str, Any]
    _index: dict[str, int]

    def call(self, name: str, *arguments: Any) -> Any:
        """Call `anytime_<name>`; a NULL handle or a negative number becomes an error.

        Raises:
            OutOfMemoryError: the library said so.
            KernelError: any other failure, with the library's message.
        """
        result = self.functions[name](*arguments)
        failed = result is None if name.endswith("_new") else name in _CHECKED and result < 0
        if failed:
            message = self.functions["error"]().decode()
            if result == OUT_OF_MEMORY or message == "out of memory":
                raise OutOfMemoryError(f"the native kernels ran out of memory in {name}.")
            raise KernelError(f"{name}: {message}.")
        return result

    def isa_index(self, isa: str) -> int:
        """The library's number of an instruction set.

        Raises:
            KernelError: this CPU or this build does not have it.
        """
        if isa not in self.isas:
            raise KernelError(
                f"the instruction set {isa!r} is not to be had here; expected one of "
                f"{', '.join(self.isas)}."
            )
        return self._index[isa]

    def peak_macs_per_s(self, isa: str) -> float:
        """Multiply-adds a second that an instruction set can do at best on all threads, measured.

        Raises:
            KernelError: this CPU or this build does not have it.
        """
        return float(self.call("peak", self.isa_index(isa)))

    def threads(self, count: int = 0) -> int:
        """Set how many threads all runs of this process share (0: only ask), and return it."""
        return int(self.call("threads", count))


_CHECKED = frozenset(
    name
    for name, (result, _) in _SIGNATURES.items()
    if result in {c_int32, c_int64, c_double} and name not in {"abi", "isa_works"}
)


@cache
def load() -> Library:
    """Load the kernels that were built from these sources.

    Raises:
        NotBuiltError: they have not been.
        KernelError: they cannot be loaded.
    """
    path = library_path(BuildOptions.from_environment())
    if not path.exists():
        raise NotBuiltError(
            f"the native kernels are not built (no {path}). "
            "Run `python -m anytime_model.kernels.build`, or set ANYTIME_ENGINE=torch."
        )
    _check_file(path)
    try:
        handle = ctypes.CDLL(str(path))
        functions = {}
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(handle, f"anytime_{name}")
            function.restype, function.argtypes = result, arguments
            functions[name] = function
    except (OSError, AttributeError) as e:
        raise KernelError(f"{path} cannot be loaded ({e}). Build it again with --force.") from e
    if functions["abi"]() != ABI:
        raise KernelError(f"{path} is of another version. Build it again with --force.")
    index = {}
    i = 0
    while (name := functions["isa"](i)) is not None:
        if functions["isa_works"](i):
            index[name.decode()] = i
        i += 1
    library = Library(path, tuple(index), functions, index)
    library.threads(_default_threads())
    return library


def _check_file(path: Path) -> None:
    """Makes sure that loading a library neither runs a stranger's code nor ends the process.

    Raises:
        KernelError: others may have written it, or a part of it is missing.
    """
    own = SOURCES.stat()
    trusted_users, trusted_groups = {0, os.geteuid(), own.st_uid}, {0, os.getegid(), own.st_gid}
    cache = path.parent.parent
    for place in (path, path.parent, cache):
        found = place.stat()
        is_sticky = place == cache and found.st_mode & stat.S_ISVTX  # as /tmp is
        by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in trusted_groups
        by_others = found.st_mode & stat.S_IWOTH
        if found.st_uid not in trusted_users or ((by_group or by_others) and not is_sticky):
            raise KernelError(
                f"{place} belongs to user {found.st_uid} with mode {found.st_mode & 0o7777:o}; "
                "expected this process's user, root or the owner of the sources, and that nobody "
                "else may write to it, as what lies there is run. Name another folder in "
                "ANYTIME_KERNEL_CACHE."
            )
    if not _is_whole(path):
        raise KernelError(f"{path} has lost a part of itself. Build it again with --force.")


def _is_whole(path: Path) -> bool:
    """Whether a library is as long as its headers say, if they are those of 64-bit ELF.

    The linker puts the table of sections at the end. Beyond the end of a file that is shorter,
    loading it ends the process by SIGBUS.
    """
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64:
        return False
    if header[:6] != b"\x7fELF\x02\x01":
        return True
    (table_at,) = struct.unpack_from("<Q", header, 0x28)
    size, count = struct.unpack_from("<HH", header, 0x3A)
    return path.stat().st_size >= int(table_at) + int(size) * int(count)


def _default_threads() -> int:
    named = os.environ.get("ANYTIME_THREADS", "")
    if named:
        if not named.isdecimal() or not 1 <= int(named) <= 256:
            raise KernelError(f"ANYTIME_THREADS is {named!r}; expected a number from 1 to 256.")
        return int(named)
    return usable_cpus()


def dtype_of(isa: str) -> Dtype:
    """What an instruction set's convolutions compute in: a key of `ELEMENT_BYTES`."""
    return next((name for name in ELEMENT_BYTES if isa.endswith(f"-{name}")), "f32")


def floats(array: Floats | None) -> Any:
    """A C pointer to an array of float32; the caller keeps the array alive."""
    return None if array is None else array.ctypes.data_as(_FLOATS)


def octets(array: Bytes | NDArray[np.bool_] | None) -> Any:
    """A C pointer to an array of bytes; the caller keeps the array alive."""
    return None if array is None else array.ctypes.data_as(_BYTES)


def array_of(kind: type[ctypes.Structure], values: Sequence[ctypes.Structure]) -> Any:
    """A C array of structures."""
    return (kind * len(values))(*values)
