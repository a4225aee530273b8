"""The garbage collector leaves alone what was there when a process became ready."""

import gc

import pytest

from anytime_server.heap import spare_what_stays


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_what_was_there_is_never_looked_at_again():
    stays = [[] for _ in range(1000)]
    spare_what_stays()
    looked_at = {id(one) for one in gc.get_objects()}
    assert not looked_at & {id(one) for one in stays}


def test_what_comes_later_is_still_collected():
    spare_what_stays()
    ring = []
    ring.append(ring)
    del ring
    assert gc.collect() >= 1
