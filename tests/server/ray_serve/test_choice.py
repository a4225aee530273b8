"""Which replica gets a request."""

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


@pytest.fixture
def loads():
    loads = Loads()
    loads.tell("a", 1, load_s=0.3, request_s=0.1)
    loads.tell("b", 1, load_s=0.1, request_s=0.1)
    loads.tell("c", 1, load_s=0.2, request_s=0.1)
    return loads


def test_the_less_loaded_of_two_is_asked_first(loads):
    assert loads.rank(["a", "b", "c"], drawing(0, 0)) == ["b", "a"]
    assert loads.rank(["a", "b", "c"], drawing(2, 0)) == ["c", "a"]


def test_two_different_replicas_are_drawn_and_each_pair_can_be(loads):
    names = ["a", "b", "c"]
    pairs = {
        frozenset(loads.rank(names, drawing(first, second)))
        for first in range(3)
        for second in range(2)
    }
    assert pairs == {frozenset("ab"), frozenset("ac"), frozenset("bc")}


def test_one_replica_needs_no_draw(loads):
    assert loads.rank(["a"], drawing()) == ["a"]


def test_what_was_sent_since_counts_until_the_replica_tells_again(loads):
    for _ in range(3):
        loads.sent("b")
    assert loads.rank(["a", "b"], drawing(0, 0)) == ["a", "b"]
    loads.tell("b", 1, load_s=0.1, request_s=0.1)  # heard before
    assert loads.rank(["a", "b"], drawing(0, 0)) == ["a", "b"]
    loads.tell("b", 2, load_s=0.1, request_s=0.1)
    assert loads.rank(["a", "b"], drawing(0, 0)) == ["b", "a"]


def test_a_replica_that_has_told_nothing_counts_as_idle(loads):
    assert loads.rank(["b", "new"], drawing(0, 0)) == ["new", "b"]


def test_replicas_that_are_gone_are_forgotten(loads):
    loads.keep(["a"])
    assert loads.rank(["a", "b"], drawing(0, 0)) == ["b", "a"]  # known no more, so idle


def test_requests_of_unknown_cost_do_not_all_go_to_one_replica(loads):
    loads.tell("a", 2, load_s=0.1, request_s=0.0)  # neither has answered any lately
    loads.tell("b", 2, load_s=0.0, request_s=0.0)
    chosen = []
    for _ in range(6):
        first, _ = loads.rank(["a", "b"], drawing(0, 0))
        loads.sent(first)
        chosen.append(first)
    assert {chosen.count("a"), chosen.count("b")} <= {2, 3, 4}
