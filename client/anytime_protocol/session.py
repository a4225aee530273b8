"""One websocket connection as a state machine without input and output, for either side.

It checks that messages come in a legal order, answers what needs no application (pings, malformed,
stale and unwanted messages), and keeps the promise that every request and every stream gets exactly
one terminal message. Bytes come in through `receive`, messages through `send`; what was received is
drained from `events`, what must be written from `outgoing`, in order.

An illegal message from this side's program raises `LocalProtocolError` and changes nothing. An
illegal message from the peer changes nothing either: it is answered where an answer can name a
request, and otherwise closes the connection with a code that says why.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from anytime_protocol import codec
from anytime_protocol.codec import FrameKind, FrameLimits
from anytime_protocol.enums import CloseCode, Effect, ErrorCode
from anytime_protocol.errors import FieldError, FrameError, LocalProtocolError, ProtocolError
from anytime_protocol.messages import (
    MAX_REV,
    TYPES,
    BudgetApplied,
    Cancel,
    CloseStream,
    ConnectionLimits,
    Failed,
    Finished,
    Frame,
    Infer,
    Message,
    OpenStream,
    Ping,
    Pong,
    Ready,
    Role,
    SetBudget,
    Update,
    parse,
)
from anytime_protocol.stream_answers import FrameEnd
from anytime_protocol.validation import ID_FORM, JsonObject, is_whole

# Of the text of a close frame (RFC 6455 section 5.5: 125 bytes with the code).
MAX_REASON_BYTES: Final = 123


class Phase(StrEnum):
    """Where a request or a stream stands on a connection.

    Attributes:
        IDLE: the id is not in use: never was, or its request or stream has ended.
        REQUESTED: `infer` was sent; not yet admitted.
        RUNNING: admitted.
        OPENING: `open` was sent; not yet answered. Frames may follow already.
        OPEN: the stream is open.
    """

    IDLE = "idle"
    REQUESTED = "requested"
    RUNNING = "running"
    OPENING = "opening"
    OPEN = "open"


# Every legal message about a request or a stream, for both sides; what is not here is illegal.
TRANSITIONS: Final[dict[tuple[Phase, str], Phase]] = {
    (Phase.IDLE, "infer"): Phase.REQUESTED,
    (Phase.REQUESTED, "accepted"): Phase.RUNNING,
    (Phase.RUNNING, "update"): Phase.RUNNING,
    (Phase.REQUESTED, "final"): Phase.IDLE,
    (Phase.REQUESTED, "error"): Phase.IDLE,
    (Phase.RUNNING, "final"): Phase.IDLE,
    (Phase.RUNNING, "error"): Phase.IDLE,
    (Phase.IDLE, "open"): Phase.OPENING,
    (Phase.OPENING, "opened"): Phase.OPEN,
    (Phase.OPEN, "update"): Phase.OPEN,
    (Phase.OPEN, "frame_end"): Phase.OPEN,
    **{(p, kind): p for p in (Phase.OPENING, Phase.OPEN) for kind in ("frame", "close")},
    **{(p, end): Phase.IDLE for p in (Phase.OPENING, Phase.OPEN) for end in ("closed", "error")},
    # These change no phase, and may cross the terminal message on the wire.
    **{(p, kind): p for p in Phase for kind in ("budget", "cancel", "budget_applied")},
}


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over; the last event of a session.

    Attributes:
        code: of the close frame; a private or foreign one may be outside `CloseCode`.
        reason: for people, at most 123 bytes.
        unfinished: requests and streams that will get no terminal message any more.
    """

    code: int
    reason: str
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of the peer that the session answered by itself (server only).

    Attributes:
        answer: what it answered; nothing else is to be done about the message.
    """

    answer: Failed | BudgetApplied


Event: TypeAlias = Message | Refused | Closed


@dataclass(slots=True)
class _Request:
    """A request or a stream.

    Attributes:
        phase: where it stands.
        text: its maps are sent as text.
        sent: frame (0 outside of streams) and exit of the last update.
        rev: of the last budget.
        frame: the last one that the client has sent.
        ended: the last frame that ended.
        closing: the client sends no more frames.
    """

    phase: Phase
    text: bool
    sent: tuple[int, int] = (0, 0)
    rev: int = 0
    frame: int = 0
    ended: int = 0
    closing: bool = False

    @property
    def exit(self) -> int:
        """The last exit sent of the request, or of the frame under way; 0 if none."""
        frame, exit_ = self.sent
        return exit_ if self.ended == 0 or frame > self.ended else 0

    def fault_of_update(self, update: Update) -> str | None:
        """Why an update is illegal now, or None."""
        frame, exit_ = update.frame or 0, update.exit
        if (self.phase is Phase.OPEN) is (update.frame is None):
            return f"update: found frame {update.frame}, expected one in streams only"
        if self.phase is Phase.OPEN and not self._may_answer(frame):
            return f"update: frame {frame} is not under way"
        if (frame, exit_) <= self.sent:
            return f"update: exit {exit_} is not above {self.sent[1]}"
        if update.base is not None and (update.base_frame or 0, update.base) != self.sent:
            return f"update: a delta on exit {update.base}, the last sent is {self.sent[1]}"
        return None

    def fault_of_end(self, end: FrameEnd) -> str | None:
        """Why the end of a frame is illegal now, or None."""
        if not self._may_answer(end.frame):
            return f"frame_end: frame {end.frame} is not under way"
        if end.error is None and end.exit != self.exit:
            return f"frame_end: exit {end.exit}, the last update showed {self.exit}"
        return None

    def fault_of_frame(self, frame: Frame) -> str | None:
        """Why a frame of the client is illegal now, or None."""
        if self.closing:
            return f"frame: stream {frame.id} is closed"
        if frame.frame <= self.frame:
            return f"frame: number {frame.frame} is not above {self.frame}"
        return None

    def _may_answer(self, frame: int) -> bool:
        """Whether a frame has come and not ended, and no other is half answered."""
        under_way = self.sent[0]
        return self.ended < frame <= self.frame and (under_way <= self.ended or under_way == frame)


_IDLE: Final = _Request(Phase.IDLE, text=False)

# The client's messages that begin a request or a stream.
_FIRST: Final = (Infer, OpenStream)


class Session:
    """One side of one connection.

    Args:
        role: which side this is.
        limits: what the server allows; a client learns it from `ready`.
        text: a client's choice to send images as base64 in text frames, and so to receive its
            maps. A server answers each request in the form in which it was asked.
    """

    def __init__(
        self, role: Role, limits: ConnectionLimits | None = None, *, text: bool = False
    ) -> None:
        self.role = role
        self.limits = limits or ConnectionLimits()
        self.closed: Closed | None = None
        self._text = text
        self._opened = False
        self._requests: dict[str, _Request] = {}
        self._refused_in_a_row = 0
        self._events: list[Event] = []
        self._outgoing: list[bytes | str] = []

    @property
    def in_flight(self) -> tuple[str, ...]:
        """Ids of the requests and streams without a terminal message, oldest first."""
        return tuple(self._requests)

    def phase(self, request_id: str) -> Phase:
        """Where a request or a stream stands."""
        return self._requests.get(request_id, _IDLE).phase

    def last_exit(self, request_id: str) -> int:
        """The exit of the last update on the wire of a request or a stream's frame; 0 if none."""
        return self._requests.get(request_id, _IDLE).exit

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def outgoing(self) -> list[bytes | str]:
        """What to write to the socket since the last call, in order: binary and text frames."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def send(self, message: Message) -> None:
        """Sends a message to the peer.

        Raises:
            LocalProtocolError: it must not be sent now, is too large for the peer or has no wire
                form (a confidence that is not a number). Nothing was changed.
        """
        if self.closed is not None:
            raise LocalProtocolError(f"{message.type}: the connection is closed")
        if message.type not in TYPES[self.role]:
            raise LocalProtocolError(f"{message.type}: not for a {self.role} to send")
        if self._opened is isinstance(message, Ready):
            raise LocalProtocolError(f"{message.type}: `ready` comes first, and once")
        self._check_room(message)
        if isinstance(message, Update) and message.part_bytes != len(message.payload):
            size = len(message.payload)
            raise LocalProtocolError(f"update: {size} bytes, the parts say {message.part_bytes}")
        fault = self._fault(message)
        if fault is not None:
            raise LocalProtocolError(fault)
        try:
            frame = self._encode(message)
        except ValueError as error:
            raise LocalProtocolError(f"{message.type}: has no wire form ({error})") from error
        self._advance(message, text=self._text)
        self._outgoing.append(frame)

    def receive(self, data: bytes | str) -> None:
        """Takes in one websocket message of the peer; never raises for what it holds.

        After the connection is closed it is ignored.
        """
        if self.closed is not None:
            return
        try:
            header, payload = self._decode(data)
            if not self._is_for_us(header):
                return
            message = parse(header, payload, self.role.peer)
        except FieldError as error:
            self._answer_malformed(header, error)
        except ProtocolError as error:
            self.close(error.close_code, str(error))
        else:
            self._take(message, text=isinstance(data, str))

    def close(self, code: int, reason: str = "") -> None:
        """Ends the connection: by this side's wish, or because the socket is gone.

        Emits `Closed`, once; an adapter then closes the socket with its code and reason.
        """
        if self.closed is not None:
            return
        short = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
        self.closed = Closed(code, short, self.in_flight)
        self._requests.clear()
        self._events.append(self.closed)

    def _decode(self, data: bytes | str) -> tuple[JsonObject, bytes]:
        limits = codec.ANSWER_LIMITS
        if self.role is Role.SERVER:
            limits = FrameLimits(self.limits.max_json_bytes, self.limits.max_payload_bytes)
        if isinstance(data, str):
            return codec.decode_text(data, limits)
        kind, header, payload = codec.decode_binary(data, limits)
        if kind is not _KINDS.get(str(header.get("type")), FrameKind.MESSAGE):
            raise FrameError(f"frame: kind {kind:d} does not go with its message's type")
        return header, payload

    def _encode(self, message: Message) -> bytes | str:
        header = message.to_json()
        if not isinstance(message, Infer | Frame | Update):
            return codec.encode_text(header)
        asks = self.role is Role.CLIENT
        text = self._text if asks else self._requests[message.id].text
        if text:
            return codec.encode_text(header, message.payload)
        return codec.encode_binary(_KINDS[message.type], header, message.payload)

    def _is_for_us(self, header: JsonObject) -> bool:
        """A client passes over message types of a later server; a server knows all types."""
        kind = header.get("type")
        return self.role is Role.SERVER or not isinstance(kind, str) or kind in TYPES[Role.SERVER]

    def _check_room(self, message: Message) -> None:
        kind, limits = message.type, self.limits
        if isinstance(message, _FIRST) and len(self._requests) >= limits.max_in_flight:
            raise LocalProtocolError(f"{kind}: {limits.max_in_flight} are in flight, the limit")
        size = len(message.payload) if isinstance(message, Infer | Frame) else 0
        if size > limits.max_payload_bytes:
            raise LocalProtocolError(f"{kind}: the image has over {limits.max_payload_bytes} bytes")

    def _fault(self, message: Message) -> str | None:
        """Why the message is illegal now, or None. Changes nothing."""
        if isinstance(message, Ready | Ping | Pong):
            return None
        request = self._requests.get(message.id, _IDLE)
        fault = None
        if (request.phase, message.type) not in TRANSITIONS:
            fault = f"{message.type}: request {message.id} is {request.phase}"
        elif isinstance(message, SetBudget) and message.rev <= request.rev:
            fault = f"budget: rev {message.rev} is not above {request.rev}"
        elif isinstance(message, Update):
            fault = request.fault_of_update(message)
        elif isinstance(message, Frame):
            fault = request.fault_of_frame(message)
        elif isinstance(message, FrameEnd):
            fault = request.fault_of_end(message)
        elif isinstance(message, Finished) and message.exit != request.exit:
            fault = f"final: exit {message.exit}, the last update showed {request.exit}"
        return fault

    def _advance(self, message: Message, *, text: bool) -> None:
        """Carries out a legal message."""
        if isinstance(message, Ready):
            self._opened = True
            self.limits = message.limits
        elif isinstance(message, _FIRST):
            phase = TRANSITIONS[Phase.IDLE, message.type]
            self._requests[message.id] = _Request(phase, text)
        elif not isinstance(message, Ping | Pong) and message.id in self._requests:
            request = self._requests[message.id]
            request.phase = TRANSITIONS[request.phase, message.type]
            match message:
                case Update():
                    request.sent = (message.frame or 0, message.exit)
                case SetBudget():
                    request.rev = message.rev
                case Frame():
                    request.frame, request.text = message.frame, text
                case FrameEnd():
                    request.ended = message.frame
                case CloseStream() | Cancel():
                    request.closing = True
            if request.phase is Phase.IDLE:
                del self._requests[message.id]

    def _take(self, message: Message, *, text: bool) -> None:
        """Carries out a well-formed message of the peer, or refuses it."""
        fault = self._fault(message)
        if self._opened is isinstance(message, Ready):
            self.close(CloseCode.BAD_MESSAGE, f"{message.type}: `ready` comes first, and once")
        elif isinstance(message, Ping):
            self._outgoing.append(codec.encode_text(Pong(message.nonce).to_json()))
        elif isinstance(message, _LATE) and self.phase(message.id) is Phase.IDLE:
            return  # it crossed the terminal message, or there never was such a request
        elif isinstance(message, SetBudget) and self.phase(message.id) is Phase.IDLE:
            self._answer_budget(message.id, message.rev, Effect.GONE)
        elif isinstance(message, SetBudget) and fault is not None:
            self._answer_budget(message.id, message.rev, Effect.STALE)
        elif isinstance(message, _FIRST) and fault is not None:
            self.close(CloseCode.DUPLICATE_ID, fault)
        elif fault is not None:
            self.close(CloseCode.BAD_MESSAGE, fault)
        elif isinstance(message, _FIRST) and len(self._requests) >= self.limits.max_in_flight:
            self._refuse_for_room(message.id)
        else:
            if isinstance(message, _FIRST):
                self._refused_in_a_row = 0
            self._advance(message, text=text)
            self._events.append(message)

    def _answer_malformed(self, header: JsonObject, error: FieldError) -> None:
        """Answers where a client's message names a request, and closes otherwise."""
        request_id = header.get("id")
        named = isinstance(request_id, str) and ID_FORM.fullmatch(request_id) is not None
        kind = str(header.get("type"))
        if self.role is Role.CLIENT or not named or kind not in {"infer", "open", "budget"}:
            self.close(CloseCode.BAD_MESSAGE, str(error))
        elif kind == "budget":
            rev = header.get("rev")
            known = rev if is_whole(rev) and 0 <= rev <= MAX_REV else 0
            self._answer_budget(str(request_id), known, Effect.REJECTED, str(error))
        elif self.phase(str(request_id)) is not Phase.IDLE:
            self.close(CloseCode.DUPLICATE_ID, f"{kind}: {request_id} is not over")
        else:
            self._refuse(Failed(str(request_id), error.code, str(error), error.field))

    def _answer_budget(
        self, request_id: str, rev: int, effect: Effect, detail: str | None = None
    ) -> None:
        at_exit = self.last_exit(request_id)
        self._refuse(BudgetApplied(request_id, rev, at_exit, effect, detail))

    def _refuse_for_room(self, request_id: str) -> None:
        """Refuses one request too many; a peer that goes on regardless is cut off."""
        most = self.limits.max_in_flight
        self._refused_in_a_row += 1
        if self._refused_in_a_row > most:
            self.close(CloseCode.TOO_MANY_IN_FLIGHT, f"{most} requests are in flight, the limit")
            return
        detail = f"{most} requests are in flight, the limit; wait for one to end"
        self._refuse(Failed(request_id, ErrorCode.TOO_MANY_REQUESTS, detail))

    def _refuse(self, answer: Failed | BudgetApplied) -> None:
        self._outgoing.append(codec.encode_text(answer.to_json()))
        self._events.append(Refused(answer))


# The frame kinds of messages with a payload; all others are plain.
_KINDS: Final = {
    "infer": FrameKind.INFER,
    "frame": FrameKind.FRAME,
    "update": FrameKind.UPDATE,
}

# The client's messages that may cross the terminal message, and then change nothing.
_LATE: Final = (Cancel, Frame, CloseStream)
