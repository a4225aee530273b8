"""Which images make up a split of one's own data set.

`train.txt`, `val.txt` and `test.txt` name images, one a line: their path below `images`, with or
without the ending. Where one of the first two is missing, its split is all images that no list
names; where both are, a share is held out for validation that depends on nothing but the names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath

from anytime_model.data.files import read_lines, require_split
from anytime_model.data.folder.faults import raise_faults
from anytime_model.errors import DataError

SPLITS = ("train", "val", "test")
HELD_OUT = 0.15
"""Share of the images that validates where no list says which."""


def select(root: Path, names: Collection[str], split: str) -> list[str]:
    """The names of a split's images, sorted.

    Args:
        root: the folder that holds the lists.
        names: of all images.
        split: one of `SPLITS`.

    Raises:
        DataError: there is no such split, it is empty, or a list names an image that does not
            exist, or one that another list names.
    """
    listed: dict[str, set[str]] = {}
    faults: list[DataError] = []
    for name in SPLITS:
        path = root / f"{name}.txt"
        if path.exists():
            listed[name] = set(_listed(path, names, faults))
    for name, members in listed.items():
        for other in SPLITS[: SPLITS.index(name)]:
            faults += (
                DataError(
                    root / f"{name}.txt", f"names {both!r}, as {other}.txt does;", "keep it in one."
                )
                for both in sorted(members & listed.get(other, set()))
            )
    raise_faults(root, faults)
    require_split(split, {"train", "val", *listed}, root)
    chosen = listed.get(split)
    if chosen is None:
        rest = set(names).difference(*listed.values())
        other = "val" if split == "train" else "train"
        if other not in listed:
            held_out = _held_out(rest)
            chosen = held_out if split == "val" else rest - held_out
        else:
            chosen = rest
    if not chosen:
        raise DataError(
            root,
            f"has no image left for the split {split};",
            f"expected some, named in {split}.txt or in no list.",
        )
    return sorted(chosen)


def _listed(path: Path, names: Collection[str], faults: list[DataError]) -> Iterator[str]:
    """Names of a list, translated to those of the images."""
    for line in read_lines(path, "the name of an image on each line"):
        stem = str(PurePosixPath(line).with_suffix("")) if line not in names else line
        if stem in names:
            yield stem
        else:
            faults.append(
                DataError(
                    path,
                    f"names {line!r}, which is no image;",
                    "expected a path below images, with or without its ending.",
                )
            )


def _held_out(names: Collection[str]) -> set[str]:
    """The names that come first when sorted by their SHA-256; none of fewer than two."""
    shuffled = sorted(names, key=lambda name: sha256(name.encode()).digest())
    return set(shuffled[: max(1, round(HELD_OUT * len(names)))]) if len(names) > 1 else set()
