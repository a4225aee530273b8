"""The state of one stream of updates."""

import pytest

from anytime_client.errors import AnswerError
from anytime_client.stream_state import StreamState
from anytime_protocol.enums import Effect
from anytime_protocol.messages import BudgetApplied


def test_a_result_before_the_end_is_an_error():
    with pytest.raises(RuntimeError, match="not over"):
        StreamState().outcome()


def test_a_stream_that_was_given_up_is_over_and_has_no_result():
    state = StreamState()
    state.abandoned = True
    assert state.is_over
    with pytest.raises(RuntimeError, match="given up"):
        state.outcome()


def test_a_budget_that_the_server_finds_malformed_is_an_error():
    state = StreamState()
    with pytest.raises(AnswerError, match="rejected a budget: because"):
        state.handle(BudgetApplied("1", 1, 0, Effect.REJECTED, "because"))
    assert not state.is_over
