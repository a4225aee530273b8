"""Requests from a caller's arguments."""

import pytest

from anytime_client import AnytimeError, Budget, BudgetError, Encoding, OutputOptions
from anytime_client.requests import InferRequest, last_map_only, merge_limits
from client.factories import PIXELS


def test_limits_beside_a_budget_tighten_it():
    assert merge_limits(Budget(deadline_ms=100, max_exit=2), 80.0) == Budget(80.0, max_exit=2)
    schedule = ((40.0, Budget(max_exit=2)),)
    assert merge_limits(Budget(schedule=schedule)).schedule == schedule
    assert merge_limits(None) == Budget()


def test_deltas_of_the_map_alone_are_requested_unless_the_caller_wants_more():
    assert InferRequest.make(PIXELS).want == OutputOptions(Encoding.DELTA)
    wanted = OutputOptions(active=True)
    assert InferRequest.make(PIXELS, want=wanted).want == wanted
    assert last_map_only(wanted) == OutputOptions(active=True, progress=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"deadline_ms": "80"}, "deadline_ms: found the text '80', expected a number"),
        ({"max_exit": 0}, "max_exit: found the number 0, expected a whole number >= 1"),
        ({"budget": {"max_exit": 2}}, "budget: found an object, expected a Budget"),
        ({"model": 3}, "model: found the number 3, expected a name"),
        ({"urgency": 8}, "urgency: found the number 8, expected a whole number, 0..7"),
        ({"want": "png"}, "want: found the text 'png', expected OutputOptions"),
    ],
)
def test_every_unusable_argument_is_an_error_of_the_client(arguments, text):
    with pytest.raises(AnytimeError) as caught:
        InferRequest.make(PIXELS, **arguments)
    assert str(caught.value).startswith(text)


def test_a_budget_out_of_range_is_an_error_of_the_client():
    with pytest.raises(BudgetError) as caught:
        Budget(deadline_ms=-1)
    assert isinstance(caught.value, AnytimeError)
