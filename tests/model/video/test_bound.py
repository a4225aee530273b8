"""A bound on the difference makes a stream stricter at once and looser slowly."""

from anytime_model.video.bound import LEVELS, START, Bound

MOST = 0.02


def bound_after(*shares):
    bound = Bound(MOST)
    for share in shares:
        bound.found(share)
    return bound


def test_it_begins_with_no_figure():
    bound = bound_after()
    assert bound.rule == LEVELS[START]
    assert (bound.difference, bound.checked) == (None, 0)


def test_the_figure_is_the_mean_of_the_last_twelve():
    bound = bound_after(0.9, *[0.01] * 6, *[0.03] * 6)
    assert bound.checked == 12
    assert abs(bound.difference - 0.02) < 1e-9


def test_a_difference_above_the_bound_tightens_and_twice_as_much_tightens_more():
    assert bound_after(0.03).rule == LEVELS[START + 1]
    assert bound_after(0.05).rule == LEVELS[START + 2]


def test_it_loosens_after_some_checks_well_below_the_bound():
    assert bound_after(*[0.005] * 3).rule == LEVELS[START]
    assert bound_after(*[0.005] * 4).rule == LEVELS[START - 1]
    assert bound_after(*[0.015] * 20).rule == LEVELS[START]
    assert bound_after(*[0.0] * 40).rule == LEVELS[0]


def test_nothing_is_reused_in_the_end_and_tried_again_ever_later():
    bound = bound_after(*[0.5] * 10)
    assert bound.rule is None

    def frames_until_tried():
        count = 0
        while bound.rule is None:
            bound.frame()
            count += 1
        return count

    assert frames_until_tried() == 100
    assert bound.rule == LEVELS[-1]
    bound.found(0.5)
    assert bound.rule is None
    assert frames_until_tried() == 200


def test_a_bound_of_all_pixels_never_tightens():
    bound = Bound(1.0)
    for _ in range(20):
        bound.found(1.0)
    assert bound.rule == LEVELS[START]
