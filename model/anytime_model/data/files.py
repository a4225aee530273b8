"""Reading of a data set's files: images, label maps, JSON and text, with errors that name them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anytime_model.errors import DataError


def require_split(split: str, known: Iterable[str], root: Path) -> None:
    """Raise `DataError` unless the split is one of those known."""
    names = sorted(known)
    if split not in names:
        raise DataError(root, f"has no split {split!r};", f"ask for one of {', '.join(names)}.")


def require_folder(path: Path, expected: str) -> Path:
    """The folder itself, or a `DataError` that says what was expected there."""
    if not path.is_dir():
        raise DataError(path, "no such folder;", f"expected {expected}.")
    return path


def files_in(folder: Path, pattern: str, expected: str) -> list[Path]:
    """The files that match, sorted; at least one, or a `DataError`."""
    require_folder(folder, expected)
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(folder, f"holds no file {pattern};", f"expected {expected}.")
    return found


@contextmanager
def opened_image(path: Path, expected: str) -> Iterator[Image.Image]:
    """An image file, opened; reading in the block may fail as opening may.

    Raises:
        DataError: it is missing, too large, or no image that can be read to its end.
    """
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise DataError(path, "no such file;", f"expected {expected}.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            path, f"is no readable image ({error});", "copy it again from its source."
        ) from error


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB."""
    with opened_image(path, "a JPEG or PNG file") as image:
        return np.asarray(image.convert("RGB"))


def read_labels(path: Path, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """A label image as (H, W) uint8 ids, palette indices left as they are.

    Args:
        path: an 8-bit greyscale or palette PNG.
        size: (H, W) that the labels must have: those of their image.
    """
    with opened_image(path, "a label file for each image") as image:
        if image.mode not in {"L", "P"}:
            raise DataError(
                path, f"has mode {image.mode};", "expected class ids in one 8-bit channel."
            )
        labels: npt.NDArray[np.uint8] = np.asarray(image)
    require_size(path, labels.shape, size)
    return labels


def require_size(path: Path, found: tuple[int, ...], size: tuple[int, int] | None) -> None:
    """Raise `DataError` if labels (H, W) have another size than their image; None is any."""
    if size is not None and found != size:
        raise DataError(
            path, f"is {found} px, its image {size};", "expected labels of the image's size."
        )


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file, or a `DataError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(path, "no such file;", f"expected {expected}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(path, f"is not JSON ({error});", f"expected {expected}.") from error


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file that are not empty; at least one, or a `DataError`."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"cannot be read ({error});", f"expected {expected}.") from error
    kept = [line for line in lines if line]
    if not kept:
        raise DataError(path, "is empty;", f"expected {expected}.")
    return kept


def remap(
    labels: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8], path: Path
) -> npt.NDArray[np.uint8]:
    """Translate ids by a table; an id beyond the table's end is a `DataError`."""
    highest = int(labels.max(initial=0))
    if highest >= len(table):
        raise DataError(
            path, f"holds the id {highest};", f"expected ids from 0 to {len(table) - 1}."
        )
    translated: npt.NDArray[np.uint8] = table[labels]
    return translated
