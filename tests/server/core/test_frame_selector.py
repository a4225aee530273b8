"""Which frame of a stream is next, without a clock."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anytime_protocol.enums import CloseReason
from anytime_server.core.frame_selector import AwaitChange, BeginFrame, EndStream, FrameSelector


def test_the_latest_frame_wins_and_those_before_it_are_counted():
    stream = FrameSelector()
    assert not stream.arrived(1)
    assert stream.decide(0.0) == BeginFrame(1)
    assert [stream.arrived(number) for number in (2, 3, 7)] == [False, True, True]
    assert stream.decide(1.0) == AwaitChange()
    stream.ended(0.5, 1.0, failed=False)
    assert stream.decide(1.0) == BeginFrame(7)
    assert (stream.end_sent(), stream.skipped) == (2, 2)
    stream.ended(0.5, 2.0, failed=False)
    assert stream.end_sent() == 0


def test_a_share_of_the_machine_keeps_frames_apart():
    stream = FrameSelector(share=0.25)
    stream.arrived(1)
    stream.decide(10.0)
    stream.arrived(2)
    stream.ended(0.1, 10.2, failed=False)
    stream.end_sent()
    decision = stream.decide(10.2)
    assert isinstance(decision, AwaitChange)
    assert math.isclose(decision.until_s, 10.5)
    assert stream.decide(decision.until_s) == BeginFrame(2)


def test_a_client_that_does_not_read_gets_no_third_frame():
    stream = FrameSelector()
    for number in (1, 2):
        stream.arrived(number)
        assert stream.decide(0.0) == BeginFrame(number)
        stream.ended(0.1, 0.0, failed=False)
    stream.arrived(3)
    assert stream.decide(0.0) == AwaitChange()
    stream.end_sent()
    assert stream.decide(0.0) == BeginFrame(3)


def test_a_closed_stream_answers_what_came_and_ends_once():
    stream = FrameSelector()
    stream.arrived(1)
    stream.decide(0.0)
    stream.arrived(2)
    assert not stream.close(CloseReason.CLOSED)
    stream.ended(0.1, 0.0, failed=True)
    assert stream.decide(0.0) == BeginFrame(2)
    stream.ended(0.1, 0.0, failed=False)
    assert stream.decide(0.0) == EndStream(CloseReason.CLOSED)
    assert stream.decide(0.0) == AwaitChange()
    assert (stream.frames, stream.skipped, stream.failed) == (1, 0, 1)


def test_a_cancelled_stream_passes_over_what_waits_and_ends_after_what_is_under_way():
    stream = FrameSelector()
    stream.arrived(1)
    stream.decide(0.0)
    stream.arrived(2)
    assert stream.close(CloseReason.CANCELLED)
    assert not stream.close(CloseReason.CLOSED)
    assert stream.decide(0.0) == AwaitChange()
    stream.ended(0.1, 0.0, failed=False)
    assert stream.decide(0.0) == EndStream(CloseReason.CANCELLED)
    assert (stream.frames, stream.skipped) == (1, 1)


def test_a_frame_that_cannot_begin_waits_again_unless_a_newer_one_does():
    stream = FrameSelector()
    stream.arrived(1)
    stream.decide(0.0)
    assert not stream.postpone(0.5)
    assert stream.decide(0.0) == AwaitChange(0.5)
    assert stream.decide(0.5) == BeginFrame(1)
    stream.arrived(2)
    assert stream.postpone(1.0)
    assert stream.decide(1.0) == BeginFrame(2)
    assert stream.skipped == 1


def test_nothing_is_postponed_in_a_stream_that_ends():
    stream = FrameSelector()
    stream.arrived(1)
    stream.decide(0.0)
    stream.close(CloseReason.DRAINING)
    assert stream.postpone(1.0)
    assert stream.decide(0.0) == EndStream(CloseReason.DRAINING)


class Turns(RuleBasedStateMachine):
    """Every frame that came is counted once, however things fall out."""

    def __init__(self):
        super().__init__()
        self.stream = FrameSelector(share=0.5)
        self.now = 0.0
        self.came = 0
        self.begun = []
        self.ends = []
        self.told = 0

    @precondition(lambda self: self.stream.closing is None)
    @rule()
    def a_frame_comes(self):
        self.came += 1
        self.stream.arrived(self.came)

    @rule(later=st.floats(0, 1))
    def time_goes_by(self, later):
        self.now += later
        match self.stream.decide(self.now):
            case BeginFrame(number=number):
                self.begun.append(number)
            case EndStream(reason=reason):
                self.ends.append(reason)

    @precondition(lambda self: self.stream.under_way is not None)
    @rule(computed=st.floats(0, 0.5), failed=st.booleans())
    def a_frame_ends(self, computed, failed):
        self.stream.ended(computed, self.now, failed=failed)

    @precondition(lambda self: self.stream.under_way is not None)
    @rule()
    def a_frame_cannot_begin(self):
        self.stream.postpone(self.now + 0.1)
        self.begun.pop()

    @precondition(lambda self: self.stream.unsent)
    @rule()
    def an_end_is_sent(self):
        self.told += self.stream.end_sent()

    @rule(reason=st.sampled_from(CloseReason))
    def it_closes(self, reason):
        self.stream.close(reason)

    @invariant()
    def nothing_is_lost(self):
        stream = self.stream
        under = (stream.waiting is not None) + (stream.under_way is not None)
        assert stream.frames + stream.failed + stream.skipped + under == self.came
        assert self.begun == sorted(set(self.begun))
        assert len(self.ends) <= 1
        assert not (self.ends and under)
        assert self.told <= stream.skipped


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
