"""What a server's processes hold, so that a test can say that a fault left nothing behind."""

from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from system.conftest import Running

TRIMMED = Path(__file__).with_name("trimmed_server.py")
WITHIN = 0.05
"""Share by which memory may have grown after a fault."""

_SETTLING_S = 20.0
"""Longest wait until what a fault held is given back."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the server and its executor hold together.

    Attributes:
        descriptors: open files and sockets.
        shared_memory: objects of `/dev/shm` that are mapped, by path.
        resident_bytes: memory.
    """

    descriptors: int
    shared_memory: frozenset[str]
    resident_bytes: int


def picture(height: int = 96, width: int = 128, kind: str = "JPEG") -> bytes:
    """A smooth image as a file."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height)).save(file, kind)
    return file.getvalue()


def family(server: Running) -> list[int]:
    """The ids of the server's process and of all that descend from it."""
    found = [server.process.pid]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found.extend(int(child) for child in children.read_text().split())
    return found


def executor_pid(server: Running) -> int:
    """The id of the executor that is ready, or was ready last."""
    return int(re.findall(r"executor (\d+) is ready", server.text())[-1])


def held(server: Running) -> Held:
    """What is held now; needs Linux."""
    folders = [Path(f"/proc/{pid}") for pid in family(server)]
    return Held(
        descriptors=sum(len(list((folder / "fd").iterdir())) for folder in folders),
        shared_memory=frozenset(path for folder in folders for path in _shared_memory(folder)),
        resident_bytes=sum(_resident_bytes(folder) for folder in folders),
    )


def assert_given_back(server: Running, before: Held, *, within: float = WITHIN) -> None:
    """Checks that nothing is held that was not held before; waits a little for it.

    Args:
        server: after the fault.
        before: what it held when it had been warmed up.
        within: share by which its memory may have grown.
    """
    until = time.monotonic() + _SETTLING_S
    while (excess := _excess(held(server), before, within)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not excess, f"still held {_SETTLING_S:g} s after the fault: {excess}"


def _excess(now: Held, before: Held, within: float) -> str:
    """What is held beyond what was held before, in words; empty if nothing is."""
    found = []
    if now.descriptors > before.descriptors:
        found.append(f"{now.descriptors} descriptors, expected {before.descriptors}")
    if new := sorted(now.shared_memory - before.shared_memory):
        found.append(f"shared memory {', '.join(new)}")
    if now.resident_bytes > before.resident_bytes * (1 + within):
        sizes = [round(size / 2**20) for size in (now.resident_bytes, before.resident_bytes)]
        found.append(f"{sizes[0]} MiB resident, expected at most {1 + within:g} x {sizes[1]} MiB")
    return "; ".join(found)


def _shared_memory(folder: Path) -> list[str]:
    return re.findall(r" (/dev/shm/.*)$", (folder / "maps").read_text(), re.MULTILINE)


def _resident_bytes(folder: Path) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", (folder / "status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
