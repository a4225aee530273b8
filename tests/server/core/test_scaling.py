"""How many replicas are wanted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_server.core.scaling import TARGET_QUALITY, Served, joined, wanted_replicas

GOOD = Served(requests_hz=10.0, quality=1.0, slack=0.5, busy=0.5)


def test_poor_answers_add_replicas_in_proportion():
    assert wanted_replicas(Served(10.0, 0.9, 0.0, 0.9), 2, 2) == 3
    assert wanted_replicas(Served(10.0, 0.5, 0.0, 0.9), 4, 4) == 8
    assert wanted_replicas(Served(10.0, 0.0, 0.0, 0.9), 4, 4) == 8  # at most doubled


def test_an_idle_deployment_gives_one_up_after_the_other():
    assert wanted_replicas(Served(), 3, 3) == 2
    assert wanted_replicas(Served(), 1, 1) == 1


def test_a_busy_deployment_that_serves_well_stays_as_it_is():
    assert wanted_replicas(Served(10.0, 1.0, 0.5, 0.6), 2, 2) == 2


def test_a_replica_goes_only_if_the_others_can_do_its_work():
    assert wanted_replicas(Served(10.0, 1.0, 0.5, 0.5), 4, 4) == 3
    assert wanted_replicas(Served(10.0, 1.0, 0.5, 0.5), 2, 2) == 2


def test_a_replica_stays_where_answers_are_just_in_time():
    assert wanted_replicas(Served(10.0, 1.0, 0.1, 0.1), 4, 4) == 4


@pytest.mark.parametrize(("running", "target"), [(1, 3), (3, 1)])
def test_nothing_new_is_decided_while_replicas_come_or_go(running, target):
    assert wanted_replicas(Served(10.0, 0.1, 0.0, 1.0), running, target) == target


def test_there_is_always_one():
    assert wanted_replicas(Served(), 0, 0) == 1


@given(
    st.builds(
        Served,
        st.floats(0, 1e3),
        st.floats(0, 1),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
    st.integers(1, 1000),
)
def test_a_decision_at_most_doubles_and_takes_one_at_most(served, count):
    wanted = wanted_replicas(served, count, count)
    assert max(count - 1, 1) <= wanted <= max(2 * count, count + 1)
    if wanted < count:
        assert served.quality >= TARGET_QUALITY
        assert served.busy * count <= (count - 1)  # the others have the time


def test_replicas_with_more_requests_count_for_more():
    one = joined([Served(30.0, 0.5, 0.2, 0.8), Served(10.0, 0.9, 0.6, 0.4)])
    assert one == Served(40.0, pytest.approx(0.6), pytest.approx(0.3), pytest.approx(0.6))


def test_idle_replicas_count_as_idle():
    assert joined([]) == Served()
    assert joined([Served(), Served()]) == Served()
    assert joined([GOOD, Served()]).busy == pytest.approx(0.25)
    assert joined([GOOD, Served()]).quality == 1.0
