"""How many CPUs this process may use: its affinity, and the quota of its control group."""

import os
from pathlib import Path


def usable_cpus(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> int:
    """CPUs that this process may use at a time, at least 1.

    A container's quota (`docker run --cpus 2`, Kubernetes' `limits.cpu`) leaves the affinity as it
    is: more threads than it has CPUs would use it up early in each period, and then stand still. A
    fraction of a CPU is no CPU.

    Args:
        membership: file that names the control groups of this process.
        mount: where control groups are mounted.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min([cpus, *map(int, _quotas(membership, mount))]))


def _quotas(membership: Path, mount: Path) -> list[float]:
    """CPUs that this process's group and those above it are allowed, where they are bounded."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / "cpu" if controllers else mount  # version 1, version 2
        group = root / path.lstrip("/")
        # In a container the path is often that outside of it, where the mount shows the group.
        for folder in [group, *group.parents]:
            if not folder.is_relative_to(root):
                break
            found += _quota(folder)
    return found


def _quota(folder: Path) -> list[float]:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            words = " ".join((folder / name).read_text() for name in names).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # no such file, or "max": no bound
            continue
        if quota > 0 < period:
            return [quota / period]
    return []
