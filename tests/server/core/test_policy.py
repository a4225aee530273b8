"""The server's own choice among stages that may all run."""

import math

from anytime_server.core.policy import QualityPerSecond
from server.core.factories import candidate


def test_first_exits_go_first_and_the_earliest_deadline_among_them():
    rich = candidate("rich", gains=((0.001, 100.0),))
    soon = candidate("soon", stage=1, due_s=0.5)
    later = candidate("later", stage=1, due_s=0.9)
    assert QualityPerSecond().choose([rich, later, soon], math.inf) is soon


def test_then_the_most_quality_per_second_is_taken():
    cheap = candidate("cheap", gains=((0.1, 10.0),))
    dear = candidate("dear", gains=((0.5, 30.0),))
    assert QualityPerSecond().choose([dear, cheap], math.inf) is cheap


def test_a_rich_stage_behind_a_poor_one_counts():
    steady = candidate("steady", gains=((0.1, 5.0), (0.1, 5.0)))
    hidden = candidate("hidden", gains=((0.1, 1.0), (0.1, 20.0)))
    assert QualityPerSecond().choose([steady, hidden], math.inf) is hidden


def test_a_step_of_urgency_counts_twice():
    calm = candidate("calm", gains=((0.1, 10.0),), urgency=4)
    urgent = candidate("urgent", gains=((0.1, 5.1),), urgency=3)
    assert QualityPerSecond().choose([calm, urgent], math.inf) is urgent


def test_an_overdue_stage_goes_first_unless_a_deadline_is_in_danger():
    overdue = candidate("overdue", due_s=0.0, overdue=True)
    first = candidate("first", stage=1)
    assert QualityPerSecond().choose([first, overdue], slack_s=0.0) is overdue
    assert QualityPerSecond().choose([first, overdue], slack_s=-0.01) is first
