"""Reading a JSON object strictly: one field at a time, each with its type and range.

Decides when a value counts as a number, a word, a list; remembers which fields were read, so that
those left over can be named. Does not know any message. JSON's `true` is never a number here, and
`null` is never an absent field: a client that means "no limit" leaves the field out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from enum import StrEnum
from typing import Any, Final, TypeGuard, TypeVar

from anytime_protocol.errors import FieldError, shorten

JsonObject = dict[str, Any]
"""A JSON object as `json.loads` gives it."""

ID_FORM: Final = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
"""A request id: URL-safe, so that it can stand in `/v1/requests/{id}` as it is."""

NAME_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A model's name; it can stand in `/v1/models/{model}` as it is."""

_MISSING: Final = object()
_Word = TypeVar("_Word", bound=StrEnum)


def describe(value: object) -> str:
    """Names a JSON value in a few words, for an error message."""
    match value:
        case None:
            words = "null"
        case bool():
            words = f"the boolean {str(value).lower()}"
        case int() if value.bit_length() > 64:
            words = "a gigantic whole number"
        case int() | float():
            words = f"the number {value}"
        case str():
            words = f"the text {shorten(value)!r}"
        case dict():
            words = "an object"
        case list():
            words = f"a list of {len(value)}"
        case _:
            words = f"a {type(value).__name__}"
    return words


def is_whole(value: object) -> TypeGuard[int]:
    """Whether the value is a whole number; Python's booleans, which are `int` too, are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def finite(value: object) -> float | None:
    """The value as a finite number, or None if it is none (a boolean, text, 1e999, 10**400)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


class JsonReader:
    """A JSON object that is read field by field.

    Args:
        value: what should be a JSON object.
        path: where it stands in the message, for error messages; empty at the top.
        error: class of the errors raised.

    Raises:
        FieldError: `value` is not an object (or a key of it not a string).
    """

    __slots__ = ("_error", "_left", "_path", "_value")

    def __init__(self, value: object, path: str = "", error: type[FieldError] = FieldError) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise error(path or "message", describe(value), "a JSON object")
        self._value: JsonObject = value
        self._left = set(value)
        self._path = path
        self._error = error

    def path(self, name: str) -> str:
        """Full path of the field `name`."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether the field is there (be it `null`)."""
        return name in self._value

    def fail(self, name: str, found: object, expected: str) -> FieldError:
        """The error for field `name`, to be raised by the caller."""
        return self._error(self.path(name), describe(found), expected)

    def take(self, name: str, expected: str) -> Any:
        """The field's value, unchecked.

        Raises:
            FieldError: it is not there; `expected` says what should have been.
        """
        self._left.discard(name)
        value = self._value.get(name, _MISSING)
        if value is _MISSING:
            raise self._error(self.path(name), "nothing", expected)
        return value

    def number(self, name: str, low: float = 0.0, high: float = math.inf) -> float:
        """A finite number with `low <= number <= high`."""
        expected = _range("a number", low, high)
        value = self.take(name, expected)
        number = finite(value)
        if number is None or not low <= number <= high:
            raise self.fail(name, value, expected)
        return number

    def integer(self, name: str, low: int = 0, high: int = 2**53) -> int:
        """A whole number with `low <= number <= high`; 2.0 is not one."""
        expected = _range("a whole number", low, high)
        value = self.take(name, expected)
        if not is_whole(value) or not low <= value <= high:
            raise self.fail(name, value, expected)
        return value

    def flag(self, name: str) -> bool:
        """`true` or `false`."""
        value = self.take(name, "true or false")
        if not isinstance(value, bool):
            raise self.fail(name, value, "true or false")
        return value

    def text(self, name: str, limit: int = 1024) -> str:
        """A string of at most `limit` characters."""
        expected = f"text of at most {limit} characters"
        value = self.take(name, expected)
        if not isinstance(value, str) or len(value) > limit:
            raise self.fail(name, value, expected)
        return value

    def formed(self, name: str, form: re.Pattern[str]) -> str:
        """A string that `form` matches as a whole."""
        expected = f"text of the form {form.pattern}"
        value = self.take(name, expected)
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise self.fail(name, value, expected)
        return value

    def word(self, name: str, words: type[_Word]) -> _Word:
        """One of the words of an enumeration."""
        expected = "one of " + ", ".join(words)
        value = self.take(name, expected)
        if not isinstance(value, str) or value not in list(words):
            raise self.fail(name, value, expected)
        return words(value)

    def items(self, name: str, limit: int) -> list[Any]:
        """A list of at most `limit` values, themselves unchecked."""
        expected = f"a list of at most {limit}"
        value = self.take(name, expected)
        if not isinstance(value, list) or len(value) > limit:
            raise self.fail(name, value, expected)
        return value

    def objects(self, name: str, limit: int) -> list[JsonReader]:
        """A list of at most `limit` objects, each to be read in turn."""
        return [
            JsonReader(item, f"{self.path(name)}[{index}]", self._error)
            for index, item in enumerate(self.items(name, limit))
        ]

    def inside(self, name: str) -> JsonReader:
        """The object in field `name`, to be read in turn."""
        return JsonReader(self.take(name, "an object"), self.path(name), self._error)

    def end(self, known: Collection[str] = ()) -> None:
        """Refuses fields that nobody has read, `known` aside.

        Raises:
            FieldError: names the first such field.
        """
        left = sorted(self._left.difference(known))
        if left:
            name = shorten(left[0])
            raise self._error(self.path(name), "an unknown field", "only fields of this protocol")


def _range(what: str, low: float, high: float) -> str:
    if high in (math.inf, 2**53):
        return f"{what} >= {low:.10g}"
    return f"{what} from {low:.10g} to {high:.10g}"
