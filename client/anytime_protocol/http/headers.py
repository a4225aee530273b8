"""The HTTP headers of the protocol, as values.

Header lines come in as pairs of name and value; values go out as text. A hard deadline
(`X-Deadline-Ms` and its aliases) must be understood: a malformed one is an error. `Prefer: wait`
and `Priority` are passed over when malformed, as their RFCs ask.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias

import http_sf
from http_sf import StructuredFieldError, Token
from pydantic import model_validator

from anytime_protocol.budget import MAX_MS
from anytime_protocol.enums import Reason
from anytime_protocol.errors import FieldError, HeaderError
from anytime_protocol.fields import Exit, check_exit
from anytime_protocol.messages import DEFAULT_URGENCY
from anytime_protocol.validation import Absent, Amount, JsonValue, Share, is_whole, whole

# Header lines: name (in any case) and value.
Lines: TypeAlias = Iterable[tuple[str, str]]

DEADLINE_APPLIED: Final = "X-Deadline-Applied-Ms"
REQUEST_ID: Final = "X-Request-Id"
RESULT: Final = "Anytime-Result"
UPDATE: Final = "Anytime-Update"
SERVER_TIMING: Final = "Server-Timing"
PRIORITY: Final = "Priority"
PREFERENCE_APPLIED: Final = "Preference-Applied"

# Begins the websocket subprotocol that carries a token where no header can.
TOKEN_PREFIX: Final = "anytime.token."  # noqa: S105 - a prefix, no secret

_MILLISECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_WHOLE: Final = re.compile(r"[0-9]+")
_GRPC: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNIT_MS: Final = {"H": 3.6e6, "M": 6e4, "S": 1e3, "m": 1.0, "u": 1e-3, "n": 1e-6}
_WAIT: Final = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?([0-9]+)"?\s*(?=$|[,;])', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Deadline:
    """What the headers of a request say about time, in ms from the end of the headers.

    Attributes:
        hard_ms: the tightest of `X-Deadline-Ms` and its aliases; not even exit 1 in time is an
            error.
        soft_ms: of `Prefer: wait`; optional exits are not begun beyond it, but a late exit 1 is
            still served.
    """

    hard_ms: float | None = None
    soft_ms: float | None = None

    @property
    def applied_ms(self) -> float | None:
        """The tighter of both: the value of `X-Deadline-Applied-Ms`."""
        times = [ms for ms in (self.hard_ms, self.soft_ms) if ms is not None]
        return min(times, default=None)


def read_deadline(lines: Lines) -> Deadline:
    """The deadline of a request; of several the tightest, and none above `MAX_MS`.

    Raises:
        HeaderError: a hard deadline is malformed.
    """
    hard: list[float] = []
    soft: list[float] = []
    for name, value in lines:
        match name.lower():
            case "x-deadline-ms":
                hard.append(_milliseconds(name, value, _MILLISECONDS))
            case "connect-timeout-ms" | "x-envoy-expected-rq-timeout-ms":
                hard.append(_milliseconds(name, value, _WHOLE))
            case "grpc-timeout":
                hard.append(_grpc_ms(name, value))
            case "prefer":
                soft.extend(1000.0 * float(seconds) for seconds in _WAIT.findall(value))
    return Deadline(
        hard_ms=min([*hard, MAX_MS]) if hard else None,
        soft_ms=min([*soft, MAX_MS]) if soft else None,
    )


def format_ms(milliseconds: float) -> str:
    """A time as `X-Deadline-Ms` and `X-Deadline-Applied-Ms` carry it: at most three decimals."""
    return f"{milliseconds:.3f}".rstrip("0").rstrip(".")


def preference_applied(deadline: Deadline) -> str | None:
    """The value of `Preference-Applied`, or None if there was no usable `Prefer: wait`."""
    return None if deadline.soft_ms is None else f"wait={deadline.soft_ms / 1000:.0f}"


@dataclass(frozen=True, slots=True)
class Priority:
    """RFC 9218: how urgent a request is, and whether partial results are of use.

    Attributes:
        urgency: 0 (most) to 7 (least).
        incremental: whether the client wants updates as they come.
    """

    urgency: int = DEFAULT_URGENCY
    incremental: bool = False

    @classmethod
    def parse(cls, value: str) -> Self:
        """Reads the header; what is malformed or out of range is as if absent (section 4)."""
        try:
            members = _read_members(value)
        except StructuredFieldError:
            return cls()
        urgency = members.get("u")
        return cls(
            urgency=urgency if is_whole(urgency) and 0 <= urgency <= 7 else DEFAULT_URGENCY,
            incremental=members.get("i") is True,
        )

    def __str__(self) -> str:
        """The header's value."""
        return http_sf.ser({"u": self.urgency, **({"i": True} if self.incremental else {})})


@dataclass(frozen=True, slots=True)
class _ExitHeader(JsonValue):
    """Base of the headers about one exit: dictionaries of RFC 9651 with fixed members."""

    HEADER: ClassVar[str]
    EXAMPLE: ClassVar[str]

    exit: Exit
    exits: Exit

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_exit("exit", self.exit, self.exits)
        return self

    @classmethod
    def parse(cls, value: str) -> Self:
        """Reads the header; members that are not known are passed over.

        Raises:
            HeaderError: malformed, or a member is missing, of the wrong type or out of range.
        """
        try:
            return cls.from_json(_read_members(value), ignore_unknown=True)
        except (StructuredFieldError, FieldError) as error:
            raise HeaderError(cls.HEADER, value, cls.EXAMPLE) from error

    def __str__(self) -> str:
        """The header's value; decimals have at most three digits after the point."""
        members = self.to_json().items()
        return http_sf.ser({k: Token(v) if isinstance(v, str) else v for k, v in members})


@dataclass(frozen=True, slots=True)
class ResultHeader(_ExitHeader):
    """The `Anytime-Result` header: what was served and why not more.

    Attributes:
        exit: 1 or more.
        exits: that the model has.
        reason: why the network stopped.
        confidence: mean over the map, 0 to 1.
        gmacs: really computed, in 1e9 multiply-adds.
        risk: see `Finished`.
    """

    HEADER: ClassVar[str] = RESULT
    EXAMPLE: ClassVar[str] = "exit=2, exits=4, reason=deadline, confidence=0.83, gmacs=105.6"

    reason: Reason
    confidence: Share
    gmacs: Amount
    risk: Absent[Share] = None


@dataclass(frozen=True, slots=True)
class UpdateHeader(_ExitHeader):
    """The `Anytime-Update` header of one part of a multipart stream: what the part shows.

    Attributes:
        exit: 1 or more.
        exits: that the model has.
        confidence: mean over the map, 0 to 1.
        elapsed_ms: from arrival until the part was about to be written.
        skipped: exits since the part before that were left out.
    """

    HEADER: ClassVar[str] = UPDATE
    EXAMPLE: ClassVar[str] = "exit=1, exits=4, confidence=0.71, elapsed_ms=21.4, skipped=0"

    confidence: Share
    elapsed_ms: Amount
    skipped: Annotated[int, whole()]


def format_timing(durations_ms: Mapping[str, float]) -> str:
    """The value of `Server-Timing`: each name with its duration in ms, in order."""
    return ", ".join(f"{name};dur={format_ms(ms)}" for name, ms in durations_ms.items())


def parse_timing(value: str) -> dict[str, float]:
    """The durations in ms of a `Server-Timing` header; empty if it is malformed."""
    try:
        entries: Any = http_sf.parse(value.encode("ascii", "backslashreplace"), tltype="list")
        return {str(name): float(more["dur"]) for name, more in entries if "dur" in more}
    except (StructuredFieldError, TypeError, ValueError):
        return {}


def token_subprotocol(token: str) -> str:
    """The subprotocol that a browser offers beside the real one, as it cannot set headers."""
    encoded = base64.urlsafe_b64encode(token.encode()).decode("ascii")
    return TOKEN_PREFIX + encoded.rstrip("=")


def read_token(lines: Lines) -> str | None:
    """The bearer token of a request (RFC 6750) or of its `Sec-WebSocket-Protocol`, or None.

    A malformed one is as if absent: it cannot be the right one.
    """
    for name, value in lines:
        scheme, _, rest = value.partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "bearer":
            return rest.strip()
        if name.lower() == "sec-websocket-protocol":
            for offered in value.split(","):
                if offered.strip().startswith(TOKEN_PREFIX):
                    return _decode_token(offered.strip().removeprefix(TOKEN_PREFIX))
    return None


def _decode_token(encoded: str) -> str | None:
    padded = encoded + "=" * (-len(encoded) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _read_members(value: str) -> dict[str, Any]:
    """The plain members of a dictionary of RFC 9651: numbers, booleans and tokens (as text)."""
    # What is not ASCII becomes a backslash, which is malformed in every place.
    text = value.encode("ascii", "backslashreplace")
    members: dict[str, Any] = {}
    parsed: Any = http_sf.parse(text, tltype="dictionary")
    for key, (item, _parameters) in parsed.items():
        if isinstance(item, Token):
            members[key] = str(item)
        elif isinstance(item, int | Decimal):
            members[key] = float(item) if isinstance(item, Decimal) else item
    return members


def _milliseconds(name: str, value: str, form: re.Pattern[str]) -> float:
    if form.fullmatch(value.strip()) is None:
        raise HeaderError(name, value, "milliseconds, such as 80")
    return float(value)


def _grpc_ms(name: str, value: str) -> float:
    parts = _GRPC.fullmatch(value.strip())
    if parts is None:
        raise HeaderError(name, value, "up to 8 digits and one of H M S m u n, such as 80m")
    return int(parts[1]) * _GRPC_UNIT_MS[parts[2]]
