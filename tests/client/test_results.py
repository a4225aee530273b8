"""Updates and results as a caller sees them."""

from dataclasses import replace

import pytest

from anytime_client import MissingArrayError, Result
from anytime_client.results import Timing
from anytime_protocol.enums import Reason
from client.factories import LADDER, STREET, map_update, pose_update, street_update


def test_an_array_that_is_not_there_says_how_to_get_it():
    with pytest.raises(MissingArrayError, match=r"OutputOptions\(active=True\)"):
        _ = street_update().active
    with pytest.raises(MissingArrayError, match=r"use \.map"):
        _ = street_update().keypoints
    with pytest.raises(MissingArrayError, match=r"use \.keypoints"):
        _ = pose_update().map


def test_a_request_that_was_cancelled_before_exit_1_has_no_map():
    times = Timing(5.0, 4.0, 1.0, 0.0, 0.0)
    result = Result(STREET, 0, 4, Reason.CANCELLED, 0.0, times, None)
    with pytest.raises(MissingArrayError, match="cancelled before exit 1"):
        _ = result.map


def test_an_exit_is_named_with_its_size_where_the_server_tells_it():
    update = map_update(3, LADDER)
    assert (update.side, update.label) == (480, "exit 3 of 4 (480 px)")
    assert (street_update().side, street_update().label) == (None, "exit 4 of 4")
    unknown = replace(update, exit=5, exits=5)  # more exits than were described
    assert (unknown.side, unknown.label) == (None, "exit 5 of 5")


def test_a_result_is_named_as_its_exit():
    times = Timing(5.0, 4.0, 1.0, 0.0, 0.0)
    result = Result(LADDER, 2, 4, Reason.DEADLINE, 1.0, times, map_update(2, LADDER))
    assert result.label == "exit 2 of 4 (240 px)"
    assert replace(result, exit=0, update=None).label == "exit 0 of 4"
