"""Which cores each of several executors computes on."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from anytime_model.kernels.cpus import usable_cpus

_TOPOLOGY: Final = Path("/sys/devices/system/cpu")

_CORES_EACH: Final = 4
"""That `auto` gives each executor, if two have as many."""


class Cores(NamedTuple):
    """What one executor computes on.

    Attributes:
        threads: compute threads; 0 leaves the choice to the engine.
        cpus: numbers of the CPUs that its process is bound to; empty for no bound.
    """

    threads: int
    cpus: tuple[int, ...] = ()


def share_cores(executors: int, threads: int, topology: Path = _TOPOLOGY) -> list[Cores]:
    """Divides threads and CPUs between executors, at least one thread each.

    Each is bound to CPUs of its own, those of one core and of one socket together, if all CPUs that
    this process may use are taken; others than this server may have the rest.

    Args:
        executors: how many; one alone is not bound.
        threads: of all together; 0 for as many as this process may use CPUs.
        topology: folder in which the system describes its CPUs.
    """
    if executors == 1:
        return [Cores(threads)]
    total = total_threads(threads)
    cpus = sorted(_own_cpus(), key=lambda cpu: _place(cpu, topology))
    bounds = [total * number // executors for number in range(executors + 1)]
    parts = [range(*ends) for ends in pairwise(bounds)]
    if len(cpus) != total or executors > total:
        return [Cores(max(len(part), 1)) for part in parts]
    return [Cores(len(part), tuple(cpus[k] for k in part)) for part in parts]


def auto_executors(threads: int = 0) -> int:
    """How many executors `auto` takes; see `docs/EXPERIMENTS.md`, "Executors on one machine".

    Two from two cores on, so that one computes while the other's answer goes out; more only where
    each has cores enough for the latency of a request that is alone.

    Args:
        threads: of all together; 0 for as many as this process may use CPUs.
    """
    total = total_threads(threads)
    return max(total // _CORES_EACH, min(total, 2))


def total_threads(threads: int) -> int:
    """How many threads a number of them stands for, 0 for as many as this process may use CPUs."""
    return threads or usable_cpus()


def bind(cpus: tuple[int, ...]) -> None:
    """Binds this process, and the threads that it starts from now on, to some CPUs."""
    if cpus:
        os.sched_setaffinity(0, cpus)


def _own_cpus() -> set[int]:
    """Empty where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _place(cpu: int, topology: Path) -> tuple[int, int, int]:
    """Socket, core and number of a CPU; the number alone where the system does not tell."""
    folder = topology / f"cpu{cpu}" / "topology"
    try:
        socket, core = (
            int((folder / name).read_text()) for name in ("physical_package_id", "core_id")
        )
    except (OSError, ValueError):
        return 0, 0, cpu
    return socket, core, cpu
