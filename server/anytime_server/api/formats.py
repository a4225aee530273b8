"""The formats in which a prediction is answered over HTTP, and which of them a client prefers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Final

from anytime_protocol.enums import Encoding, Task
from anytime_protocol.messages import OutputOptions

_MAX_ACCEPTED: Final = 32
"""Items of an `Accept` header that are read."""


class AnswerFormat(StrEnum):
    """In which format a request is answered; the value is the media type."""

    PNG = "image/png"
    JSON = "application/json"
    NPY = "application/x-npy"
    SSE = "text/event-stream"
    NDJSON = "application/x-ndjson"
    MIXED = "multipart/mixed"
    REPLACE = "multipart/x-mixed-replace"

    @property
    def is_progressive(self) -> bool:
        """Whether it shows every exit."""
        return self not in {AnswerFormat.PNG, AnswerFormat.JSON, AnswerFormat.NPY}


_ENCODINGS: Final = {
    AnswerFormat.PNG: Encoding.PNG,
    AnswerFormat.JSON: Encoding.RLE,
    AnswerFormat.NPY: Encoding.RAW,
    AnswerFormat.MIXED: Encoding.PNG,
    AnswerFormat.REPLACE: Encoding.PNG,
}
"""Formats that determine the encoding."""

_FORMATS: Final = {
    Task.SEGMENTATION: tuple(AnswerFormat),
    Task.POSE: (
        AnswerFormat.JSON,
        AnswerFormat.NPY,
        AnswerFormat.SSE,
        AnswerFormat.NDJSON,
        AnswerFormat.MIXED,
    ),
}


def formats_of(task: Task) -> tuple[AnswerFormat, ...]:
    """The formats that exist for a task, the default first."""
    return _FORMATS[task]


def negotiate(accept: str, task: Task, *, incremental: bool) -> AnswerFormat | None:
    """The format that a client prefers among those that exist for a task (RFC 9110, 12.5.1).

    Args:
        accept: the header.
        task: of the model.
        incremental: partial results are of use; decides between formats of one weight.

    Returns:
        None if no format is acceptable.
    """
    formats = formats_of(task)
    weights: dict[AnswerFormat, float] = {}
    exactness: dict[AnswerFormat, int] = {}
    order: dict[AnswerFormat, int] = {}
    for position, item in enumerate(accept.split(",")[:_MAX_ACCEPTED]):
        pattern, *parameters = (piece.strip().lower() for piece in item.split(";"))
        weight = _weight(parameters)
        for found in formats:
            exact = _match(pattern, found)
            if exact > exactness.get(found, 0):
                exactness[found], weights[found], order[found] = exact, weight, position
    usable = [found for found, weight in weights.items() if weight > 0.0]
    if not usable:
        return None

    def rank(found: AnswerFormat) -> tuple[float, bool, int, bool, int]:
        named = exactness[found] == 3
        suits = found.is_progressive == incremental if named else found is formats[0]
        return (-weights[found], not suits, order[found], not named, formats.index(found))

    return min(usable, key=rank)


def restrict(want: OutputOptions, answer_format: AnswerFormat) -> OutputOptions:
    """What must be made for a format: a plain file holds one map and nothing else."""
    encoding = _ENCODINGS.get(answer_format)
    if encoding is None:
        return want
    return replace(
        want,
        encoding=encoding,
        confidence=False,
        active=False,
        heatmaps=False,
        progress=answer_format.is_progressive and want.progress,
    )


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _match(pattern: str, answer_format: AnswerFormat) -> int:
    """How exactly a media range names a format: 3 by name, 2 by type, 1 by `*/*`, 0 not at all."""
    if pattern == answer_format.value:
        return 3
    if pattern == answer_format.value.partition("/")[0] + "/*":
        return 2
    return 1 if pattern in {"*/*", "*"} else 0
