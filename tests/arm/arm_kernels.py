"""The kernels on an emulated ARM processor, in place of this machine's: `make test-arm`.

A plugin of pytest. The portable kernels are compiled by a cross-compiler into a program that calls
them for us, which qemu runs; `library.load` then gives a library whose functions ask that program.
So the engine's tests, which compare with torch and with one another, say whether the maps are
right there. Nothing is said about speed.
"""

import atexit
import ctypes
import math
import os
import shutil
import struct
import subprocess
import threading
from ctypes import c_void_p, cast
from functools import cache
from pathlib import Path

import pytest

from anytime_model.kernels import library
from anytime_model.kernels.build import COMMON_FLAGS, EXACT_FLAGS, SOURCES, X86_FLAGS

COMPILER = os.environ.get("ARM_CXX", "aarch64-linux-gnu-g++")
EMULATOR = os.environ.get("ARM_EMULATOR", "qemu-aarch64")
FOLDER = Path(__file__).parents[2] / ".cache" / "arm"
FLOAT = 4


def build():
    """Compiles what has changed; the program."""
    for needed in (COMPILER, EMULATOR):
        if shutil.which(needed) is None:
            raise pytest.UsageError(
                f"there is no {needed}; Debian's packages are g++-aarch64-linux-gnu and qemu-user"
            )
    FOLDER.mkdir(parents=True, exist_ok=True)
    sources = [p for p in sorted(SOURCES.glob("*.cpp")) if p.name not in X86_FLAGS]
    sources.append(Path(__file__).with_name("server.cpp"))
    newest = max(p.stat().st_mtime for p in (*sources, *SOURCES.glob("*.h*")))
    objects = []
    for source in sources:
        made = FOLDER / f"{source.stem}.o"
        exact = EXACT_FLAGS if source.name.endswith("_int8.cpp") else ()
        if not made.exists() or made.stat().st_mtime < newest:
            flags = (*COMMON_FLAGS, *exact, f"-I{SOURCES}")
            subprocess.run([COMPILER, *flags, "-c", source, "-o", made], check=True)
        objects.append(made)
    program = FOLDER / "server"
    subprocess.run([COMPILER, "-static", "-pthread", *objects, "-o", program], check=True)
    return program


class Remote:
    """The functions of a library in another process."""

    def __init__(self, program):
        self._process = subprocess.Popen(
            [EMULATOR, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        atexit.register(self._process.kill)
        self._lock = threading.RLock()
        self._busy = False
        self._freed = []
        self._error = ""
        self._slots = {}  # by plan and run: rows, columns and channels of each

    def function(self, name):
        """A function as `Library` calls it."""
        if name == "error":
            return lambda: self._error.encode()  # noqa: PLW0108  of the moment of the call
        if name == "abi":
            return lambda: library.ABI
        if name == "peak":
            return lambda _: 1.0  # an emulator has no speed to tell
        return lambda *arguments: self._call(name, arguments)

    def _call(self, name, arguments):
        with self._lock:
            if self._busy:  # the garbage collector frees something in the middle of a call
                self._freed.append((name, arguments))
                return None
            while self._freed:
                self._ask(*self._freed.pop())
            return self._ask(name, arguments)

    def _ask(self, name, arguments):
        self._busy = True
        try:
            sizes = self._sizes(name, arguments)
            out = self._send(name, arguments, sizes)
            (result,) = struct.unpack("<q", self._read(8))
            text = self._read(struct.unpack("<I", self._read(4))[0]).decode()
            for pointer, size in out:
                ctypes.memmove(cast(pointer, c_void_p), self._read(size), size)
        finally:
            self._busy = False
        if name == "isa":
            return text.encode() or None
        self._error = text
        if name == "plan_new" and result:
            _, height, width, slots, *_ = arguments
            self._slots["plan", result] = [
                (height >> slot.level, width >> slot.level, slot.channels) for slot in slots
            ]
        elif name == "run_new" and result:
            self._slots["run", result] = self._slots["plan", arguments[0]]
        return (result or None) if name.endswith("_new") else result

    def _sizes(self, name, a):
        """Bytes behind each pointer, by the argument's index; negative: they come back."""
        match name:
            case "model_conv":
                return {1: FLOAT * a[2] * a[3] * a[4] ** 2}
            case "model_depthwise":
                return {1: FLOAT * a[2] * a[3] ** 2}
            case "model_norm":
                return dict.fromkeys((1, 2, 3), FLOAT * a[5]) | {4: FLOAT * 49}
            case "plan_new":
                whole = {3: ctypes.sizeof(a[3]), 5: ctypes.sizeof(a[5]), 8: ctypes.sizeof(a[8])}
                return whole | ({} if a[7] is None else {7: ctypes.sizeof(a[7])})
            case "run_bytes":
                return {1: 3 * a[2] * a[3], 4: 3 * FLOAT, 5: 3 * FLOAT}
            case "run_floats":
                return {1: 3 * FLOAT * a[2] * a[3]}
            case "decode":
                return {1: FLOAT * a[2] * a[3] * a[4], 10: -a[8] * a[9]}
            case "resize":
                return {1: 3 * a[2] * a[3], 6: -3 * a[4] * a[5]}
            case "block_differences":
                blocks = -FLOAT * (a[2] // a[4]) * (a[3] // a[4])
                return dict.fromkeys((0, 1), 3 * a[2] * a[3]) | dict.fromkeys((5, 6), blocks)
            case "run_read_slot":
                return {2: -FLOAT * math.prod(self._slots["run", a[0]][a[1]])}
            case "run_mask" | "run_prior" | "run_read" | "run_hold":
                rows, columns, channels = self._slots["run", a[0]][1]
                cells = rows * columns
                return {
                    "run_mask": {1: cells},
                    "run_hold": {2: cells},
                    "run_prior": {1: FLOAT * cells * channels, 2: cells},
                    "run_read": {1: -FLOAT * cells * channels, 2: -FLOAT * cells, 3: -cells},
                }[name]
        return {}

    def _send(self, name, arguments, sizes):
        """Sends a call; the pointers whose bytes come back, and how many."""
        message = [struct.pack("<I", len(name)), name.encode(), struct.pack("<I", len(arguments))]
        out = []
        for index, value in enumerate(arguments):
            if value is None:
                message.append(b"n")
            elif index in sizes and sizes[index] < 0:
                out.append((value, -sizes[index]))
                message.append(b"o" + struct.pack("<I", -sizes[index]))
            elif index in sizes:
                address = cast(value, c_void_p)
                data = ctypes.string_at(address, sizes[index])
                message.append(b"b" + struct.pack("<I", len(data)) + data)
            elif isinstance(value, float):
                message.append(b"d" + struct.pack("<d", value))
            else:
                message.append(b"i" + struct.pack("<q", int(value)))
        self._process.stdin.write(b"".join(message))
        self._process.stdin.flush()
        return out

    def _read(self, count):
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise RuntimeError(f"the emulated program ended with {self._process.wait()}")
        return data


@cache
def load():
    """In place of `library.load`."""
    remote = Remote(build())
    functions = {name: remote.function(name) for name in library._SIGNATURES}
    index = {}
    number = 0
    while (name := functions["isa"](number)) is not None:
        if functions["isa_works"](number):
            index[name.decode()] = number
        number += 1
    functions["threads"](2)
    return library.Library(FOLDER / "server", tuple(index), functions, index)


library.load = load  # before any module of the engine takes it


def pytest_report_header():
    return f"kernels on an emulated processor: {', '.join(load().isas)}"
