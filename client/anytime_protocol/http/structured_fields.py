"""Structured field values for HTTP (RFC 9651): dictionaries of plain items.

Decides how such a header value is written and read. Knows no header: `headers` does. Items may be
integers, decimals, strings, tokens and booleans; inner lists, byte sequences, dates and display
strings are not used by this protocol and count as malformed. Parameters are read and dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from anytime_protocol.errors import HeaderError


class Token(str):
    """A word without quotes, such as the reason in `reason=deadline`."""

    __slots__ = ()


Item: TypeAlias = int | float | str | Token | bool
"""A bare item; `bool` and `Token` are told apart from the `int` and `str` that they also are."""

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_ITEM: Final = (
    r"(?P<decimal>-?[0-9]{1,12}\.[0-9]{1,3})|(?P<integer>-?[0-9]{1,15})"
    r'|"(?P<string>(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'
    r"|\?(?P<boolean>[01])|(?P<token>[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*)"
)
_PARAMETER_VALUE: Final = re.sub(r"\?P<\w+>", "?:", _ITEM)
_MEMBER: Final = re.compile(
    rf"(?P<key>{_KEY})(?:=(?:{_ITEM}))?(?:; *{_KEY}(?:=(?:{_PARAMETER_VALUE}))?)*"
)
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_FORM: Final = "a dictionary as of RFC 9651"


def parse(header: str, value: str) -> dict[str, Item]:
    """Reads a dictionary.

    Args:
        header: name of the header, for the error.
        value: several lines of the same header are joined by commas before.

    Returns:
        The members in order; of a repeated key the last counts.

    Raises:
        HeaderError: the value is malformed.
    """
    text = value.strip(" ")
    members: dict[str, Item] = {}
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            raise HeaderError(header, value, _FORM)
        members[member["key"]] = _item(member)
        position = member.end()
        if position == len(text):
            break
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            raise HeaderError(header, value, _FORM)
        position = comma.end()
    return members


def serialise(members: Mapping[str, Item]) -> str:
    """Writes a dictionary; decimals get at most three digits after the point (section 4.1.5).

    Raises:
        ValueError: a value has no structured form: a string that is not printable ASCII, a number
            out of range, a token or a key of the wrong form.
    """
    parts: list[str] = []
    for key, value in members.items():
        text = key if value is True else f"{key}={_write(value)}"
        if _MEMBER.fullmatch(text) is None:
            raise ValueError(f"{text!r} has no form in a structured field")
        parts.append(text)
    return ", ".join(parts)


def _item(member: re.Match[str]) -> Item:
    item: Item = True
    if member["decimal"] is not None:
        item = float(member["decimal"])
    elif member["integer"] is not None:
        item = int(member["integer"])
    elif member["string"] is not None:
        item = re.sub(r"\\(.)", r"\1", member["string"])
    elif member["token"] is not None:
        item = Token(member["token"])
    elif member["boolean"] is not None:
        item = member["boolean"] == "1"
    return item


def _write(value: Item) -> str:
    match value:
        case bool():
            text = "?1" if value else "?0"
        case int():
            text = str(value)
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} has no form in a structured field")
        case float():
            text = f"{value:.3f}".rstrip("0")
            text = text + "0" if text.endswith(".") else text
        case Token():
            text = str.__str__(value)
        case _:
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
