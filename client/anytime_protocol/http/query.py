"""Budget and output options in the query string of a URL: `?max_exit=2&scale=0.5`.

A schedule has no form here: it needs a JSON body, a form field or a message. The rules for values
are those of JSON, so that `max_exit=2.0` or `deadline_ms=nan` are errors in either place.
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Final

from anytime_protocol.budget import LIMITS, Budget
from anytime_protocol.codec import load_json
from anytime_protocol.errors import BudgetError, FieldError, FrameError, shorten
from anytime_protocol.messages import OutputOptions
from anytime_protocol.validation import JsonObject

_WORDS: Final = frozenset({"encoding", "compression"})
_WANTED: Final = frozenset(field.name for field in fields(OutputOptions))


def read_query(pairs: Iterable[tuple[str, str]]) -> tuple[Budget, OutputOptions]:
    """Reads the decoded pairs of a query string.

    Raises:
        BudgetError: a limit is malformed.
        FieldError: another parameter is malformed, unknown or given twice.
    """
    limits: JsonObject = {}
    wanted: JsonObject = {}
    for name, text in pairs:
        target = limits if name in LIMITS else wanted
        if name not in _WANTED and name not in LIMITS:
            known = ", ".join([*LIMITS, *sorted(_WANTED)])
            raise FieldError(f"query.{shorten(name)}", "an unknown parameter", f"one of {known}")
        if name in target:
            raise FieldError(f"query.{name}", "the parameter twice", "it once")
        target[name] = text if name in _WORDS else _value(name, text)
    return Budget.from_json(limits, "query"), OutputOptions.from_json(wanted, "query")


def _value(name: str, text: str) -> object:
    """The JSON value that `text` is; wrapped, so that the one strict reader does the work."""
    try:
        wrapped = load_json(f'{{"value":{shorten(text)}}}')
    except FrameError:
        wrapped = {}
    if set(wrapped) != {"value"}:
        error = BudgetError if name in LIMITS else FieldError
        raise error(f"query.{name}", repr(shorten(text)), "a number, true or false")
    return wrapped["value"]
