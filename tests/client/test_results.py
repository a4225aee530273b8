"""Updates and results as a caller sees them."""

import pytest

from anytime_client import MissingArrayError, Result
from anytime_client.results import Timing
from anytime_protocol.enums import Reason
from client.factories import STREET, pose_update, street_update


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
