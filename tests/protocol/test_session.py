"""The state machine of a connection, one rule at a time."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.budget import Budget
from anytime_protocol.codec import FrameKind, encode_binary, encode_text
from anytime_protocol.enums import ArrayName, CloseCode, Effect, Encoding, ErrorCode, Reason
from anytime_protocol.errors import LocalProtocolError
from anytime_protocol.messages import (
    BudgetApplied,
    Cancel,
    CloseStream,
    ConnectionLimits,
    Failed,
    Finished,
    Message,
    Ping,
    Pong,
    Ready,
    Role,
    SetBudget,
)
from anytime_protocol.session import TRANSITIONS, Closed, Event, Phase, Refused, Session
from protocol.factories import (
    BAD_FRAME,
    JSON,
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


class Line:
    """Both ends of a connection whose bytes arrive at once."""

    def __init__(self, *, max_in_flight: int = 8, text: bool = False) -> None:
        self.client = Session(Role.CLIENT, text=text)
        self.server = Session(Role.SERVER)
        hello = ready()
        limits = ConnectionLimits(max_in_flight=max_in_flight)
        self.serve(Ready(hello.server, hello.models, limits))
        self.client.events()

    def ask(self, *messages: Message) -> list[Event]:
        """Sends from the client; returns what the server learns."""
        for message in messages:
            self.client.send(message)
        for data in self.client.outgoing():
            self.server.receive(data)
        return self.server.events()

    def serve(self, *messages: Message) -> None:
        """Sends from the server."""
        for message in messages:
            self.server.send(message)
        for data in self.server.outgoing():
            self.client.receive(data)

    def learnt(self) -> list[Event]:
        """What the client has learnt, the server's own answers included."""
        self.serve()
        return self.client.events()


def _raw(header: dict[str, object], payload: bytes = b"") -> str:
    return encode_text(header, payload)


def test_a_request_runs_from_infer_to_final() -> None:
    line = Line()
    assert line.ask(infer("r1")) == [infer("r1")]
    story: list[Message] = [accepted("r1"), update("r1", 1), update("r1", 3), finished("r1", 3)]
    line.serve(*story)
    assert line.learnt() == story
    assert line.client.in_flight == line.server.in_flight == ()


def test_images_and_maps_travel_as_they_were_asked_for() -> None:
    for text, kind in ((False, bytes), (True, str)):
        line = Line(text=text)
        line.client.send(infer("r1"))
        (frame,) = line.client.outgoing()
        assert isinstance(frame, kind)
        line.server.receive(frame)
        line.server.send(accepted("r1"))
        line.server.send(update("r1", 1))
        plain, mapped = line.server.outgoing()
        assert isinstance(plain, str)
        assert isinstance(mapped, kind)


def test_ready_comes_first_and_once() -> None:
    server, client = Session(Role.SERVER), Session(Role.CLIENT)
    with pytest.raises(LocalProtocolError, match="ready"):
        client.send(infer("r1"))
    with pytest.raises(LocalProtocolError, match="ready"):
        server.send(Pong(1))
    server.send(ready())
    with pytest.raises(LocalProtocolError, match="ready"):
        server.send(ready())
    client.receive(_raw(accepted("r1").to_json()))
    assert client.closed is not None
    assert client.closed.code == CloseCode.BAD_MESSAGE


def test_nobody_says_what_the_other_side_says() -> None:
    line = Line()
    with pytest.raises(LocalProtocolError, match="not for a client"):
        line.client.send(finished("r1", 0))
    with pytest.raises(LocalProtocolError, match="not for a server"):
        line.server.send(Ping(1))
    line.server.receive(_raw(finished("r1", 0).to_json()))
    assert line.server.closed is not None
    assert line.server.closed.code == CloseCode.BAD_MESSAGE


def test_an_illegal_answer_is_not_sent_and_changes_nothing() -> None:
    for message in (
        accepted("r9"),
        update("r9", 1),
        finished("r9", 0),
        failed("r9"),
        update("r1", 2),
        update("r1", 1),
        finished("r1", 1),
        accepted("r1"),
        update("r1", 3, ArraySegment(ArrayName.MAP, Encoding.DELTA, (1, 6), 6, base=1)),
    ):
        line = Line()
        line.ask(infer("r1"))
        line.serve(accepted("r1"), update("r1", 2))
        with pytest.raises(LocalProtocolError):
            line.server.send(message)
        assert line.server.outgoing() == []
        assert (line.server.phase("r1"), line.server.last_exit("r1")) == (Phase.RUNNING, 2)
        line.serve(finished("r1", 2))
        assert line.client.in_flight == ()


def test_an_illegal_answer_of_a_foreign_server_closes_the_connection() -> None:
    line = Line()
    line.ask(infer("r1"))
    line.client.receive(_raw(finished("r9", 0).to_json()))
    assert line.client.closed is not None
    assert line.client.closed.code == CloseCode.BAD_MESSAGE
    assert line.client.closed.unfinished == ("r1",)


def test_what_has_no_wire_form_is_not_sent_and_changes_nothing() -> None:
    line = Line()
    line.ask(infer("r1"))
    line.serve(accepted("r1"))
    for broken in (
        replace(update("r1", 1), confidence=float("nan")),
        replace(update("r1", 1), payload=b"short"),
    ):
        with pytest.raises(LocalProtocolError, match=r"not JSON compliant|5 bytes"):
            line.server.send(broken)
    assert line.server.outgoing() == []
    line.serve(update("r1", 1), finished("r1", 1))
    assert line.client.in_flight == ()


def test_updates_come_only_after_accepted() -> None:
    line = Line()
    line.ask(infer("r1"))
    with pytest.raises(LocalProtocolError, match="requested"):
        line.server.send(update("r1", 1))


def test_a_delta_is_made_against_the_last_update_that_was_sent() -> None:
    line = Line()
    line.ask(infer("r1"))
    part = ArraySegment(ArrayName.MAP, Encoding.DELTA, (1, 6), 4, base=2)
    line.serve(accepted("r1"), update("r1", 2), update("r1", 4, part, b"\0\0\0\0"))
    assert line.server.last_exit("r1") == line.client.last_exit("r1") == 4


def test_an_id_may_be_used_again_after_its_end() -> None:
    line = Line()
    for _ in range(2):
        assert line.ask(infer("r1")) == [infer("r1")]
        line.serve(failed("r1"))
    assert [type(event) for event in line.learnt()] == [Failed, Failed]


def test_a_duplicate_id_closes_the_connection_with_its_code() -> None:
    for again in (infer("r1").to_json(), infer("r1").to_json() | {"urgency": "high"}):
        line = Line()
        line.ask(infer("r1"), infer("r2"))
        with pytest.raises(LocalProtocolError, match="requested"):
            line.client.send(infer("r1"))
        line.server.receive(_raw(again, b"image"))
        (event,) = line.server.events()
        assert isinstance(event, Closed)
        assert event.code == CloseCode.DUPLICATE_ID
        assert event.unfinished == ("r1", "r2")


def test_one_request_too_many_is_refused_alone() -> None:
    line = Line(max_in_flight=2)
    line.ask(infer("r1"), infer("r2"))
    with pytest.raises(LocalProtocolError, match="limit"):
        line.client.send(infer("r3"))
    line.server.receive(_raw(infer("r3").to_json(), b"image"))
    (event,) = line.server.events()
    assert isinstance(event, Refused)
    assert isinstance(event.answer, Failed)
    assert event.answer.code is ErrorCode.TOO_MANY_REQUESTS
    assert line.server.in_flight == ("r1", "r2")
    assert json.loads(str(line.server.outgoing()[0]))["id"] == "r3"


def test_a_client_that_goes_on_asking_too_much_is_cut_off() -> None:
    line = Line(max_in_flight=2)
    line.ask(infer("r1"), infer("r2"))
    for number in range(2):
        line.server.receive(_raw(infer(f"x{number}").to_json(), b"image"))
        assert line.server.closed is None
    line.server.receive(_raw(infer("x2").to_json(), b"image"))
    assert line.server.closed is not None
    assert line.server.closed.code == CloseCode.TOO_MANY_IN_FLIGHT


def test_a_client_that_slows_down_in_time_is_forgiven() -> None:
    line = Line(max_in_flight=1)
    for number in range(5):
        line.server.receive(_raw(infer(f"r{number}").to_json(), b"image"))
        line.server.receive(_raw(infer("more").to_json(), b"image"))
        line.server.send(failed(f"r{number}"))
    assert line.server.closed is None


def test_a_malformed_infer_fails_alone() -> None:
    for change, code, field in (
        ({"budget": {"deadline_ms": -1}}, ErrorCode.BAD_BUDGET, "budget.deadline_ms"),
        ({"budget": {"deadline": 1}}, ErrorCode.BAD_BUDGET, "budget.deadline"),
        ({"model": "a b"}, ErrorCode.BAD_MESSAGE, "model"),
        ({"colour": "red"}, ErrorCode.BAD_MESSAGE, "colour"),
    ):
        line = Line()
        line.ask(infer("r1"))
        line.server.receive(_raw(infer("r2").to_json() | change, b"image"))
        (event,) = line.server.events()
        assert isinstance(event, Refused)
        assert isinstance(event.answer, Failed)
        assert (event.answer.id, event.answer.code, event.answer.field) == ("r2", code, field)
        assert line.server.in_flight == ("r1",)
        assert line.server.closed is None


def test_a_budget_is_passed_on_and_a_stale_one_is_not() -> None:
    line = Line()
    line.ask(infer("r1"))
    new = SetBudget("r1", 5, Budget(max_exit=2))
    assert line.ask(new) == [new]
    with pytest.raises(LocalProtocolError, match="rev 5 is not above 5"):
        line.client.send(new)
    for rev in (5, 3):
        line.server.receive(_raw(SetBudget("r1", rev, Budget()).to_json()))
        (event,) = line.server.events()
        assert event == Refused(BudgetApplied("r1", rev, 0, Effect.STALE))
    line.serve(BudgetApplied("r1", 5, 0, Effect.APPLIED))
    effects = [event.effect for event in line.learnt() if isinstance(event, BudgetApplied)]
    assert effects == [Effect.STALE, Effect.STALE, Effect.APPLIED]


def test_a_malformed_budget_leaves_the_request_as_it_was() -> None:
    line = Line()
    line.ask(infer("r1"))
    line.serve(accepted("r1"), update("r1", 1))
    bad = SetBudget("r1", 1, Budget()).to_json() | {"budget": {"max_exit": 0}}
    line.server.receive(_raw(bad))
    line.server.receive(_raw(bad | {"rev": True}))
    answers = [event.answer for event in line.server.events() if isinstance(event, Refused)]
    assert [(answer.rev, answer.at_exit, answer.effect) for answer in answers] == [
        (1, 1, Effect.REJECTED),
        (0, 1, Effect.REJECTED),
    ]
    good = SetBudget("r1", 1, Budget(max_exit=2))
    assert line.ask(good) == [good]


def test_a_budget_that_crosses_the_end_is_answered_gone_and_a_cancel_is_ignored() -> None:
    line = Line()
    line.ask(infer("r1"))
    line.server.send(finished("r1", 0, Reason.CANCELLED))
    assert line.ask(Cancel("r1"), SetBudget("r1", 1, Budget())) == [
        Refused(BudgetApplied("r1", 1, 0, Effect.GONE))
    ]
    assert [type(event) for event in line.learnt()] == [Finished, BudgetApplied]
    assert line.server.closed is line.client.closed is None


def test_a_cancel_may_be_repeated() -> None:
    line = Line()
    line.ask(infer("r1"))
    assert line.ask(Cancel("r1"), Cancel("r1")) == [Cancel("r1"), Cancel("r1")]
    line.serve(finished("r1", 0, Reason.CANCELLED))
    assert line.ask(Cancel("r1")) == []


def test_a_ping_is_answered_without_the_application() -> None:
    line = Line()
    assert line.ask(Ping(7)) == []
    assert line.learnt() == [Pong(7)]


def test_what_names_no_request_closes_the_connection() -> None:
    for data, code in (
        ("{", 4400),
        ("[]", 4400),
        ('{"type":"infer"}', 4400),
        ('{"type":"infer","id":7}', 4400),
        ('{"type":"cancel"}', 4400),
        ('{"type":"nonsense","id":"r1"}', 4400),
        ('{"type":"ready"}', 4400),
        ('{"type":7}', 4400),
        ('{"type":["infer"],"id":"r1"}', 4400),
        ('{"type":{},"id":"r1"}', 4400),
        ('{"type":"ping","nonce":-1}', 4400),
        ('{"type":"ping","nonce":1,"nonce":1}', 4400),
        (b"\0\0\0\0", 4400),
        (b"\0\0\0\7\0\0\0\2{}", 1003),
        (b"\0\0\0\0\0\0\0\1\xff", 1007),
        (b"\0\0\0\0\xff\xff\xff\xff", 1009),
        (encode_binary(FrameKind.UPDATE, infer("r1").to_json(), b"x"), 4400),
        (encode_binary(FrameKind.INFER, Cancel("r1").to_json()), 4400),
        (encode_binary(FrameKind.MESSAGE, infer("r1").to_json()), 4400),
        (encode_binary(FrameKind.INFER, frame("s1", 1).to_json(), b"x"), 4400),
        ('{"type":"frame","id":"s1","frame":0,"media_type":"image/png"}', 4400),
        ('{"type":"frame","id":"s1","frame":1}', 4400),
        ('{"type":"close","id":"s1","reason":"bye"}', 4400),
    ):
        line = Line()
        line.server.receive(data)
        (event,) = line.server.events()
        assert isinstance(event, Closed)
        assert event.code == code
        assert len(event.reason.encode()) <= 123


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("type", "id", "rev", "budget", "model", "media_type", "nonce", "want"),
            *("frame", "share", "reuse", "exit", "exits", "reason", "frames"),
        ]
    ),
    JSON
    | st.sampled_from(
        [
            *("r1", "r2", "s1", "infer", "budget", "cancel", "ping", "update", "final"),
            *("open", "frame", "close", "opened", "frame_end", "closed", 1, 2, "image/png"),
        ]
    ),
)


@given(st.sampled_from(Role), HEADERS, st.binary(max_size=3), st.booleans())
def test_no_foreign_message_crashes_a_session_or_ends_another_request(
    role: Role, header: dict[str, object], payload: bytes, text: bool
) -> None:
    line = Line()
    line.ask(infer("r1"), open_stream("s1"), frame("s1", 1))
    session = line.server if role is Role.SERVER else line.client
    message = json.dumps(header)
    if not text:
        message_bytes = message.encode()
        prefix = struct.pack(">II", len(payload), len(message_bytes))
        session.receive(prefix + message_bytes + payload)
    else:
        session.receive(message)
    named = header.get("id")
    others = [name for name in ("r1", "s1") if name != named]
    assert session.closed is not None or set(others) <= set(session.in_flight)
    assert len(session.events()) <= 1


@given(st.sampled_from(Role), st.binary(max_size=60) | st.text(max_size=60))
def test_no_foreign_bytes_crash_a_session(role: Role, data: bytes | str) -> None:
    line = Line()
    session = line.server if role is Role.SERVER else line.client
    session.receive(data)
    assert session.closed is not None or session.events() == []


def test_messages_without_a_payload_may_come_in_binary_frames() -> None:
    line = Line()
    line.ask(infer("r1"))
    line.server.receive(encode_binary(FrameKind.MESSAGE, Cancel("r1").to_json()))
    assert line.server.events() == [Cancel("r1")]


def test_a_client_passes_over_messages_of_a_later_server() -> None:
    line = Line()
    line.client.receive('{"type":"hint","text":"hello"}')
    assert line.client.events() == []
    assert line.client.closed is None


def test_after_the_close_nothing_is_heard_or_said() -> None:
    line = Line()
    line.ask(infer("r1"))
    line.client.close(1006, "the socket is gone \N{WARNING SIGN}" * 20)
    line.client.close(1000)
    line.client.receive(_raw(failed("r1").to_json()))
    (event,) = line.client.events()
    assert isinstance(event, Closed)
    assert (event.code, event.unfinished) == (1006, ("r1",))
    assert len(event.reason.encode()) <= 123
    with pytest.raises(LocalProtocolError, match="closed"):
        line.client.send(Ping(1))


def test_an_image_larger_than_the_server_allows_is_not_sent() -> None:
    client = Session(Role.CLIENT)
    hello = ready()
    small = Ready(hello.server, hello.models, ConnectionLimits(max_payload_bytes=4))
    client.receive(_raw(small.to_json()))
    with pytest.raises(LocalProtocolError, match="over 4 bytes"):
        client.send(infer("r1"))


def test_every_terminal_message_ends_a_request_and_no_other_does() -> None:
    ends = {kind for (phase, kind), after in TRANSITIONS.items() if phase != after == Phase.IDLE}
    assert ends == {"final", "closed", "error"}


def test_a_stream_runs_from_open_to_closed() -> None:
    line = Line()
    asked = [open_stream("s1"), frame("s1", 1), frame("s1", 5), CloseStream("s1")]
    assert line.ask(*asked) == asked
    part = ArraySegment(ArrayName.MAP, Encoding.DELTA, (1, 6), 4, base=3, base_frame=1)
    story: list[Message] = [
        opened("s1"),
        update("s1", 1, frame=1),
        update("s1", 3, frame=1),
        frame_end("s1", 1, 3),
        update("s1", 2, part, b"\0\0\0\0", frame=5),
        frame_end("s1", 5, 2),
        closed("s1"),
    ]
    line.serve(*story)
    assert line.learnt() == story
    assert line.client.in_flight == line.server.in_flight == ()


def test_frames_may_follow_an_open_before_it_is_answered_and_are_passed_over_if_it_is_refused() -> (
    None
):
    line = Line()
    line.ask(open_stream("s1"))
    line.client.send(frame("s1", 1))
    line.client.send(CloseStream("s1"))
    line.serve(failed("s1"))
    for data in line.client.outgoing():
        line.server.receive(data)
    assert line.server.events() == []
    assert line.server.closed is None


def test_an_illegal_answer_in_a_stream_is_not_sent_and_changes_nothing() -> None:
    delta = ArraySegment(ArrayName.MAP, Encoding.DELTA, (1, 6), 4, base=1, base_frame=3)
    for message in (
        opened("s1"),
        finished("s1", 2),
        update("s1", 3),
        update("s1", 2, frame=4),
        update("s1", 3, frame=3),
        update("s1", 1, frame=5),
        update("s1", 3, delta, b"\0\0\0\0", frame=4),
        frame_end("s1", 4, 1),
        frame_end("s1", 3, 0),
        frame_end("s1", 5, 0),
        frame_end("s1", 7, 0),
        update("r1", 1, frame=1),
        frame_end("r1", 1, 0),
    ):
        line = Line()
        line.ask(infer("r1"), open_stream("s1"), *(frame("s1", number) for number in (1, 3, 4, 5)))
        line.serve(accepted("r1"), opened("s1"), update("s1", 1, frame=3), frame_end("s1", 3, 1))
        line.serve(update("s1", 2, frame=4))
        with pytest.raises(LocalProtocolError):
            line.server.send(message)
        assert line.server.outgoing() == []
        line.serve(frame_end("s1", 4, 2), frame_end("s1", 5, 0, BAD_FRAME), closed("s1"))
        assert line.client.in_flight == ("r1",)


def test_frames_rise_and_end_with_a_close_or_a_cancel() -> None:
    for end in (CloseStream("s1"), Cancel("s1")):
        for late in (frame("s1", 2), frame("s1", 3)):
            line = Line()
            line.ask(open_stream("s1"), frame("s1", 2), *([end] if late.frame == 3 else []))
            with pytest.raises(LocalProtocolError, match=r"closed|above"):
                line.client.send(late)
            line.server.receive(_raw(late.to_json(), b"image"))
            assert line.server.closed is not None
            assert line.server.closed.code == CloseCode.BAD_MESSAGE


def test_a_stream_counts_as_one_request_and_has_its_id_to_itself() -> None:
    line = Line(max_in_flight=2)
    line.ask(infer("r1"), open_stream("s1"), frame("s1", 1))
    line.server.receive(_raw(open_stream("s2").to_json()))
    (event,) = line.server.events()
    assert isinstance(event, Refused)
    assert isinstance(event.answer, Failed)
    assert event.answer.code is ErrorCode.TOO_MANY_REQUESTS
    line.server.receive(_raw(infer("s1").to_json(), b"image"))
    assert line.server.closed is not None
    assert line.server.closed.code == CloseCode.DUPLICATE_ID


def test_a_malformed_open_fails_alone_and_names_its_field() -> None:
    for change, field in (
        ({"share": 0}, "share"),
        ({"reuse": {"max_age": 0}}, "reuse.max_age"),
        ({"reuse": {"max_difference": 2.0}}, "reuse.max_difference"),
        ({"reuse": None}, "reuse"),
        ({"payload": "aaaa"}, "payload"),
    ):
        line = Line()
        line.server.receive(_raw(open_stream("s1").to_json() | change))
        (event,) = line.server.events()
        assert isinstance(event, Refused)
        assert isinstance(event.answer, Failed)
        assert event.answer.field == field
        assert line.server.closed is None


def test_a_budget_of_a_stream_says_how_far_its_frame_has_come() -> None:
    line = Line()
    line.ask(open_stream("s1"), frame("s1", 1), frame("s1", 2))
    line.serve(opened("s1"), update("s1", 2, frame=1))
    assert line.server.last_exit("s1") == 2
    line.serve(frame_end("s1", 1, 2))
    assert line.server.last_exit("s1") == 0
    new = SetBudget("s1", 1, Budget(max_exit=2))
    assert line.ask(new) == [new]


def test_maps_of_a_stream_come_in_the_form_of_its_frames() -> None:
    for text, kind in ((False, bytes), (True, str)):
        line = Line(text=text)
        line.ask(open_stream("s1"), frame("s1", 1))
        line.serve(opened("s1"))
        line.server.send(update("s1", 1, frame=1))
        (mapped,) = line.server.outgoing()
        assert isinstance(mapped, kind)
