"""Memory that a process keeps: from the garbage collector, and from the kernel.

A full garbage collection visits every object that lives, some 200,000 with the libraries loaded,
in the middle of whatever stage or ping there is. What was loaded for good need not be visited.

glibc gives freed memory back to the kernel beyond 128 kB, and gets it again page by page; what one
request has freed the next will need. Measured gains are in docs/EXPERIMENTS.md. Other C libraries
do as they please.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Names of parameters in glibc's `malloc.h`."""

_KEPT: Final = 64 * 2**20
"""Bytes that are free and not given back; of each thread that has allocated them."""

_OWN_MAPPING: Final = 32 * 2**20
"""Bytes from which an array gets pages of its own, given back at once; the most glibc takes."""


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def exclude_from_collection() -> None:
    """Collects garbage once, and leaves what still lives out of all later collections."""
    gc.collect()
    gc.freeze()


def keep_freed_memory() -> bool:
    """Has the C library hold on to freed memory, process-wide; returns whether it can."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # musl has none
        return False
    taken = [
        library.mallopt(name, value)
        for name, value in ((_M_TRIM_THRESHOLD, _KEPT), (_M_MMAP_THRESHOLD, _OWN_MAPPING))
    ]
    return all(taken)
