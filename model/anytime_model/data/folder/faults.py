"""Everything that is wrong with a data set, told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from anytime_model.data.sample import SampleSource
from anytime_model.errors import DataError

SHOWN = 5
"""Faults that are told in full."""


def raise_faults(root: Path, faults: Sequence[DataError]) -> None:
    """Raise one error for all faults, the first few in full; nothing where there are none."""
    if not faults:
        return
    if len(faults) == 1:
        raise faults[0]
    lines = "".join(f"\n  {fault}" for fault in faults[:SHOWN])
    first = f"the first {SHOWN} are:" if len(faults) > SHOWN else "they are:"
    raise DataError(root, f"has {len(faults)} faults; {first}{lines}\n", "Correct them all.")


def check(
    root: Path, sources: Iterable[SampleSource], tick: Callable[[], object] = lambda: None
) -> None:
    """Read every sample of some splits.

    Args:
        root: the data set's folder.
        sources: the splits.
        tick: called after each sample.

    Raises:
        DataError: samples cannot be read; the message tells the first few.
    """
    faults: dict[str, DataError] = {}
    with ThreadPoolExecutor() as pool:
        for source in sources:
            for fault in pool.map(partial(_fault, source), range(len(source))):
                if fault is not None:
                    faults[str(fault)] = fault
                tick()
    raise_faults(root, tuple(faults.values()))


def _fault(source: SampleSource, index: int) -> DataError | None:
    try:
        source[index]
    except DataError as error:
        return error
    return None
