"""Requests from a caller's arguments."""

from anytime_client import Budget, Encoding, OutputOptions
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
