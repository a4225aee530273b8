"""Which replica gets a request."""

from itertools import count

import pytest

from anytime_server.ray_serve.choice import Loads


def drawing(*numbers):
    """Draws these numbers, one after the other, each below what is asked for."""
    left = list(numbers)

    def draw(below):
        number = left.pop(0)
        assert 0 <= number < below
        return number

    return draw


def chosen(loads, requests, names=("a", "b")):
    """Where requests go, of which none has reached a replica yet."""
    return [loads.choose(request, names, drawing(0, 0))[0] for request in requests]


@pytest.fixture
def loads():
    loads = Loads()
    loads.tell("a", 1, load_s=0.3, request_s=0.1)
    loads.tell("b", 1, load_s=0.1, request_s=0.1)
    loads.tell("c", 1, load_s=0.2, request_s=0.1)
    return loads


@pytest.fixture
def idle():
    """Neither has answered a request lately."""
    loads = Loads()
    loads.tell("a", 1, load_s=0.0, request_s=0.0)
    loads.tell("b", 1, load_s=0.0, request_s=0.0)
    return loads


def test_the_less_loaded_of_two_is_asked_first(loads):
    assert loads.choose("x", ["a", "b", "c"], drawing(0, 0)) == ["b", "a"]
    assert loads.choose("y", ["a", "b", "c"], drawing(2, 0)) == ["c", "a"]


def test_two_different_replicas_are_drawn_and_each_pair_can_be(loads):
    names = ["a", "b", "c"]
    pairs = {
        frozenset(loads.choose("x", names, drawing(first, second)))
        for first in range(3)
        for second in range(2)
    }
    assert pairs == {frozenset("ab"), frozenset("ac"), frozenset("bc")}


def test_one_replica_is_chosen_alone(loads):
    assert loads.choose("x", ["a"], drawing(0)) == ["a"]


def test_of_two_with_equal_loads_the_one_drawn_first_is_asked_first(idle):
    assert idle.choose("x", ["a", "b"], drawing(1, 0)) == ["b", "a"]


def test_requests_that_come_together_are_spread_before_any_has_reached_a_replica(idle):
    assert sorted(chosen(idle, "uvwxyz")) == ["a", "a", "a", "b", "b", "b"]


def test_a_request_counts_until_the_second_statement_after_it_was_sent(loads):
    assert chosen(loads, "xyz") == ["b", "b", "a"]  # z finds 0.3 at both
    loads.tell("b", 1, load_s=0.1, request_s=0.1)  # heard before
    assert loads.choose("w", ["b", "c"], drawing(0, 0)) == ["c", "b"]
    loads.tell("b", 2, load_s=0.1, request_s=0.1)  # perhaps from before they arrived
    assert loads.choose("v", ["b", "c"], drawing(1, 0)) == ["c", "b"]
    loads.tell("b", 3, load_s=0.1, request_s=0.1)
    assert loads.choose("u", ["b", "c"], drawing(1, 0)) == ["b", "c"]


def test_a_request_that_waits_in_a_replica_goes_on_counting_by_what_the_replica_tells(idle):
    numbers = count(2)
    assert chosen(idle, "x") == ["a"]
    for _ in range(3):
        number = next(numbers)
        idle.tell("a", number, load_s=0.01, request_s=0.0)
        idle.tell("b", number, load_s=0.0, request_s=0.0)
    assert chosen(idle, "y") == ["b"]


def test_a_request_that_has_ended_counts_no_more(idle):
    assert chosen(idle, "xy") == ["a", "b"]
    idle.ended("x", "a")
    assert chosen(idle, "z") == ["a"]
    idle.tell("b", 2, load_s=0.0, request_s=0.0)
    idle.ended("y", "b")  # sent before its last statement
    assert chosen(idle, "w") == ["b"]


def test_the_end_of_an_unknown_request_changes_nothing(idle):
    idle.ended("x", "a")
    idle.ended("x", "gone")
    assert chosen(idle, "y") == ["a"]


def test_a_replica_that_has_told_nothing_counts_as_idle(loads):
    assert loads.choose("x", ["b", "new"], drawing(0, 0)) == ["new", "b"]


def test_replicas_that_are_gone_are_forgotten(loads):
    loads.keep(["a"])
    assert loads.choose("x", ["a", "b"], drawing(0, 0)) == ["b", "a"]  # known no more, so idle
