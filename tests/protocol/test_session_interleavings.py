"""Both sessions under any interleaving of what programs, networks and faulty peers may do.

The promise: however messages cross, each `infer` and each `open` that reaches a server and whose
connection lives gets exactly one terminal message, in the order of its other messages, and nobody
is closed who kept to the rules.
"""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.budget import Budget
from anytime_protocol.codec import encode_text
from anytime_protocol.enums import ArrayName, Effect, Encoding
from anytime_protocol.errors import LocalProtocolError
from anytime_protocol.messages import (
    Accepted,
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
)
from anytime_protocol.session import Phase, Session
from anytime_protocol.stream_answers import FrameEnd, StreamClosed, StreamOpened
from protocol.factories import (
    BAD_FRAME,
    accepted,
    closed,
    failed,
    finished,
    frame,
    frame_end,
    infer,
    open_stream,
    opened,
    ready,
    update,
)

IDS = st.sampled_from(["a", "b", "c"])
EXITS = st.integers(1, 4)
FRAMES = st.integers(1, 6)
MAX_IN_FLIGHT = 2


class Crossing(RuleBasedStateMachine):
    """Two sessions with a queue of frames in each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Session(Role.CLIENT)
        self.server = Session(Role.SERVER)
        self.up: deque[bytes | str] = deque()
        self.down: deque[bytes | str] = deque()
        self.asked: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.pings = 0
        self.pongs = 0
        self.seen: dict[str, tuple[int, int]] = {}
        self.finished_frame: dict[str, int] = {}
        hello = ready()
        limits = ConnectionLimits(max_in_flight=MAX_IN_FLIGHT)
        self._say(self.server, Ready(hello.server, hello.models, limits))
        self.deliver_down(1)

    def _say(self, session: Session, message: Message) -> bool:
        """Sends; what the session refuses must leave it as it was."""
        before = (session.in_flight, [session.last_exit(name) for name in "abc"])
        try:
            session.send(message)
        except LocalProtocolError:
            after = (session.in_flight, [session.last_exit(name) for name in "abc"])
            assert after == before
            assert session.outgoing() == []
            return False
        self._flush()
        return True

    def _flush(self) -> None:
        self.up.extend(self.client.outgoing())
        self.down.extend(self.server.outgoing())

    @rule(name=IDS)
    def the_client_asks(self, name: str) -> None:
        may = self.client.phase(name) is Phase.IDLE and len(self.client.in_flight) < MAX_IN_FLIGHT
        assert self._say(self.client, infer(name)) == may
        self.asked[name] += may

    @rule(name=IDS)
    def the_client_opens_a_stream(self, name: str) -> None:
        may = self.client.phase(name) is Phase.IDLE and len(self.client.in_flight) < MAX_IN_FLIGHT
        assert self._say(self.client, open_stream(name)) == may
        self.asked[name] += may

    @rule(name=IDS, number=FRAMES)
    def the_client_sends_a_frame(self, name: str, number: int) -> None:
        sent = self._say(self.client, frame(name, number))
        assert not sent or self.client.phase(name) in {Phase.OPENING, Phase.OPEN}

    @rule(name=IDS)
    def the_client_closes_a_stream(self, name: str) -> None:
        may = self.client.phase(name) in {Phase.OPENING, Phase.OPEN}
        assert self._say(self.client, CloseStream(name)) == may

    @rule(name=IDS, rev=st.integers(1, 4))
    def the_client_changes_the_budget(self, name: str, rev: int) -> None:
        self._say(self.client, SetBudget(name, rev, Budget(max_exit=rev)))

    @rule(name=IDS)
    def the_client_cancels(self, name: str) -> None:
        assert self._say(self.client, Cancel(name))

    @rule()
    def the_client_pings(self) -> None:
        assert self._say(self.client, Ping(self.pings))
        self.pings += 1

    @rule(name=IDS)
    def a_late_budget_arrives(self, name: str) -> None:
        self.up.append(encode_text(SetBudget(name, 1, Budget()).to_json()))

    @rule(name=IDS)
    def a_nonsense_budget_arrives(self, name: str) -> None:
        self.up.append(encode_text({"type": "budget", "id": name, "rev": 9, "budget": 7}))

    @rule(name=IDS)
    def the_server_admits(self, name: str) -> None:
        may = self.server.phase(name) is Phase.REQUESTED
        assert self._say(self.server, accepted(name)) == may

    @rule(name=IDS, exit_=EXITS)
    def the_server_serves_an_exit(self, name: str, exit_: int) -> None:
        last = self.server.last_exit(name)
        may = self.server.phase(name) is Phase.RUNNING and exit_ > last
        assert self._say(self.server, update(name, exit_)) == may

    @rule(name=IDS, exit_=EXITS, base=EXITS)
    def the_server_serves_a_delta(self, name: str, exit_: int, base: int) -> None:
        last = self.server.last_exit(name)
        may = self.server.phase(name) is Phase.RUNNING and exit_ > last and base == last
        part = ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), 4, base=base)
        assert self._say(self.server, update(name, exit_, part, b"\0\0\0\0")) == may

    @rule(name=IDS, exit_=st.integers(0, 4))
    def the_server_finishes(self, name: str, exit_: int) -> None:
        asked = self.server.phase(name) in {Phase.REQUESTED, Phase.RUNNING}
        may = asked and exit_ == self.server.last_exit(name)
        assert self._say(self.server, finished(name, exit_)) == may
        self.served[name] += may

    @rule(name=IDS)
    def the_server_opens(self, name: str) -> None:
        may = self.server.phase(name) is Phase.OPENING
        assert self._say(self.server, opened(name)) == may

    @rule(name=IDS, exit_=EXITS, number=FRAMES, base=EXITS, base_frame=st.none() | FRAMES)
    def the_server_serves_an_exit_of_a_frame(
        self, name: str, exit_: int, number: int, base: int, base_frame: int | None
    ) -> None:
        part, payload = None, b""
        if base_frame is not None and (base_frame, base) < (number, exit_):
            shape = (ArrayName.MAP, Encoding.DELTA, (2, 3), 4)
            part, payload = ArraySegment(*shape, base=base, base_frame=base_frame), b"\0" * 4
        sent = self._say(self.server, update(name, exit_, part, payload, number))
        assert not sent or self.server.phase(name) is Phase.OPEN

    @rule(name=IDS, number=FRAMES, exit_=st.integers(0, 4), fails=st.booleans())
    def the_server_ends_a_frame(self, name: str, number: int, exit_: int, fails: bool) -> None:
        end = frame_end(name, number, 0, BAD_FRAME) if fails else frame_end(name, number, exit_)
        before = self.server.last_exit(name)
        if self._say(self.server, end):
            assert fails or exit_ == before
            assert self.server.last_exit(name) == 0

    @rule(name=IDS)
    def the_server_closes_a_stream(self, name: str) -> None:
        may = self.server.phase(name) in {Phase.OPENING, Phase.OPEN}
        assert self._say(self.server, closed(name)) == may
        self.served[name] += may

    @rule(name=IDS)
    def the_server_fails(self, name: str) -> None:
        may = self.server.phase(name) is not Phase.IDLE
        assert self._say(self.server, failed(name)) == may
        self.served[name] += may

    @rule(name=IDS, rev=st.integers(1, 4))
    def the_server_applies_a_budget(self, name: str, rev: int) -> None:
        assert self._say(self.server, BudgetApplied(name, rev, 0, Effect.APPLIED))

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 5))
    def deliver_up(self, count: int) -> None:
        for _ in range(min(count, len(self.up))):
            self.server.receive(self.up.popleft())
        for event in self.server.events():
            if isinstance(event, Infer | SetBudget | OpenStream | Frame | CloseStream):
                assert self.server.phase(event.id) is not Phase.IDLE
        self._flush()

    @precondition(lambda self: self.down)
    @rule(count=st.integers(1, 5))
    def deliver_down(self, count: int) -> None:
        for _ in range(min(count, len(self.down))):
            self.client.receive(self.down.popleft())
        for event in self.client.events():
            match event:
                case Finished() | Failed() | StreamClosed():
                    self.ended[event.id] += 1
                    self.seen.pop(event.id, None)
                    self.finished_frame.pop(event.id, None)
                case Accepted() | StreamOpened():
                    assert event.id not in self.seen
                    self.seen[event.id] = (0, 0)
                case Update():
                    seen, number = self.seen[event.id], event.frame or 0
                    assert (number, event.exit) > seen
                    assert number in {0, seen[0]} or self.finished_frame.get(event.id, 0) >= seen[0]
                    assert event.base is None or (event.base_frame or 0, event.base) == seen
                    self.seen[event.id] = (number, event.exit)
                case FrameEnd():
                    assert event.frame > self.finished_frame.get(event.id, 0)
                    self.finished_frame[event.id] = event.frame
                    seen = self.seen[event.id]
                    shown = seen[1] if seen[0] == event.frame else 0
                    assert event.error is not None or event.exit == shown
                case Pong():
                    assert event.nonce == self.pongs
                    self.pongs += 1
                case _:
                    assert isinstance(event, BudgetApplied | Ready)
        self._flush()

    @invariant()
    def nobody_is_closed(self) -> None:
        assert self.client.closed is None
        assert self.server.closed is None

    @invariant()
    def the_client_never_has_more_ends_than_requests(self) -> None:
        for name in "abc":
            running = name in self.client.in_flight
            assert self.asked[name] == self.ended[name] + running

    def teardown(self) -> None:
        """Lets everything arrive and everything end: each request has exactly one end."""
        while self.up or self.down:
            if self.up:
                self.deliver_up(5)
            if self.down:
                self.deliver_down(5)
        for name in self.server.in_flight:
            self.the_server_fails(name)
        while self.down:
            self.deliver_down(5)
        assert self.client.in_flight == self.server.in_flight == ()
        assert self.asked == self.served == self.ended
        assert self.pings == self.pongs


TestCrossing = Crossing.TestCase
TestCrossing.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
