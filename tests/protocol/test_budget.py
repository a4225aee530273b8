"""What a budget may say, and the laws of tightening."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.budget import LIMITS, MAX_SCHEDULE, Budget, tightest
from anytime_protocol.errors import BudgetError
from protocol.factories import MOMENTS, budgets

TIMES = st.floats(0, 100) | MOMENTS


def test_a_nonsense_budget_is_refused_and_its_field_named() -> None:
    for wire, field in (
        ({"deadline_ms": -1}, "budget.deadline_ms"),
        ({"deadline_ms": math.nan}, "budget.deadline_ms"),
        ({"deadline_ms": math.inf}, "budget.deadline_ms"),
        ({"deadline_ms": 10**400}, "budget.deadline_ms"),
        ({"deadline_ms": True}, "budget.deadline_ms"),
        ({"deadline_ms": "80"}, "budget.deadline_ms"),
        ({"deadline_ms": None}, "budget.deadline_ms"),
        ({"deadline_ms": 86_400_001}, "budget.deadline_ms"),
        ({"compute_gmacs": -0.5}, "budget.compute_gmacs"),
        ({"compute_gmacs": [1]}, "budget.compute_gmacs"),
        ({"max_exit": 0}, "budget.max_exit"),
        ({"max_exit": 2.0}, "budget.max_exit"),
        ({"max_exit": False}, "budget.max_exit"),
        ({"min_confidence": 1.01}, "budget.min_confidence"),
        ({"confident_share": -0.1}, "budget.confident_share"),
        ({"max_risk": 1.1}, "budget.max_risk"),
        ({"deadline": 80}, "budget.deadline"),
        ({"schedule": {}}, "budget.schedule"),
        ({"schedule": [7]}, "budget.schedule[0]"),
        ({"schedule": [{"max_exit": 1}]}, "budget.schedule[0].at_ms"),
        ({"schedule": [{"at_ms": 9}, {"at_ms": 8}]}, "budget.schedule[1].at_ms"),
        ({"schedule": [{"at_ms": 9}, {"at_ms": 9}]}, "budget.schedule[1].at_ms"),
        ({"schedule": [{"at_ms": -1}]}, "budget.schedule[0].at_ms"),
        ({"schedule": [{"at_ms": 1, "max_exit": 0}]}, "budget.schedule[0].max_exit"),
        ({"schedule": [{"at_ms": 1, "schedule": []}]}, "budget.schedule[0].schedule"),
        ({"schedule": [{"at_ms": n} for n in range(MAX_SCHEDULE + 1)]}, "budget.schedule"),
        ([], "budget"),
        (None, "budget"),
    ):
        with pytest.raises(BudgetError) as caught:
            Budget.from_json(wire)
        assert caught.value.field == field
        assert field in str(caught.value)


def test_a_nonsense_budget_cannot_be_built_in_code_either() -> None:
    for build in (
        lambda: Budget(deadline_ms=-1),
        lambda: Budget(compute_gmacs=math.nan),
        lambda: Budget(max_exit=0),
        lambda: Budget(min_confidence=2),
        lambda: Budget(schedule=((5.0, Budget()), (5.0, Budget()))),
        lambda: Budget(schedule=((5.0, Budget(schedule=((1.0, Budget()),))),)),
    ):
        with pytest.raises(BudgetError):
            build()  # type: ignore[operator]


def test_a_day_is_the_last_moment_of_a_schedule() -> None:
    wire = {"schedule": [{"at_ms": 86_400_000, "max_exit": 4}]}
    assert Budget.from_json(wire).to_json() == wire
    with pytest.raises(BudgetError, match=r"schedule\[0\].at_ms: .* from 0 to 86400000"):
        Budget.from_json({"schedule": [{"at_ms": 86_400_001, "max_exit": 4}]})


def test_a_gigantic_unknown_field_does_not_come_back_in_the_error() -> None:
    with pytest.raises(BudgetError) as caught:
        Budget.from_json({"x" * 100_000: 1})
    assert len(str(caught.value)) < 300


def test_an_entry_holds_from_its_moment_on_and_leaves_other_limits_alone() -> None:
    budget = Budget.from_json(
        {"deadline_ms": 100, "max_exit": 4, "schedule": [{"at_ms": 40, "max_exit": 2}]}
    )
    assert budget.at(39.999) == Budget(deadline_ms=100.0, max_exit=4)
    assert budget.at(40.0) == Budget(deadline_ms=100.0, max_exit=2)
    assert budget.changes_after(39.0) == 40.0
    assert budget.changes_after(40.0) is None


def test_limits_changed_by_earlier_entries_stay_changed() -> None:
    budget = Budget.from_json(
        {"schedule": [{"at_ms": 10, "max_exit": 2}, {"at_ms": 20, "min_confidence": 0.5}]}
    )
    assert budget.at(25) == Budget(max_exit=2, min_confidence=0.5)


@given(budgets(), TIMES)
def test_the_pieces_are_the_budget_at_every_moment(budget: Budget, moment: float) -> None:
    pieces = budget.pieces()
    assert pieces[0][0] == 0
    assert [limits for at_ms, limits in pieces if at_ms <= moment][-1] == budget.at(moment)


def test_an_error_says_what_was_found_and_what_was_expected() -> None:
    for wire, words in (
        ({"max_exit": 2.0}, "budget.max_exit: found the number 2.0, expected a whole number >= 1"),
        ({"max_exit": 10**400}, "found a gigantic whole number, expected a whole number >= 1"),
        ({"deadline_ms": None}, "found null, expected a number from 0 to 86400000"),
        ({"deadline": 80}, "found an unknown field, expected only fields of this protocol"),
        ({"schedule": [{}]}, "schedule[0].at_ms: found nothing, expected a number from 0"),
        ({"schedule": [{"at_ms": 60}, {"at_ms": 40.0}]}, "expected more than the entry before it"),
        ({"schedule": [{"at_ms": 1}] * 65}, "found a list of 65, expected a list of at most 64"),
    ):
        with pytest.raises(BudgetError) as caught:
            Budget.from_json(wire)
        assert words in str(caught.value)


@given(budgets())
def test_the_wire_form_means_the_same(budget: Budget) -> None:
    wire = json.loads(json.dumps(budget.to_json()))
    assert Budget.from_json(wire) == budget


@given(budgets(), budgets())
def test_tightest_is_commutative(a: Budget, b: Budget) -> None:
    assert tightest(a, b) == tightest(b, a)


@given(budgets(), budgets(), budgets())
def test_tightest_is_associative(a: Budget, b: Budget, c: Budget) -> None:
    assert tightest(tightest(a, b), c) == tightest(a, tightest(b, c))


@given(budgets())
def test_tightest_is_idempotent_and_no_limit_is_neutral(a: Budget) -> None:
    assert tightest(a, a) == a.normalised()
    assert tightest(a, Budget()) == a.normalised()


@given(budgets(), budgets(), TIMES)
def test_the_tightest_allows_at_each_moment_only_what_both_allow(
    a: Budget, b: Budget, moment: float
) -> None:
    both, first, second = tightest(a, b).at(moment), a.at(moment), b.at(moment)
    for name in LIMITS:
        given_limits = [
            limit for limit in (getattr(first, name), getattr(second, name)) if limit is not None
        ]
        assert getattr(both, name) == min(given_limits, default=None)


@given(budgets(), TIMES)
def test_the_normal_form_means_the_same_at_every_moment(budget: Budget, moment: float) -> None:
    assert budget.normalised().at(moment) == budget.at(moment)
    assert budget.normalised().normalised() == budget.normalised()


@given(budgets())
def test_every_entry_of_a_normal_form_changes_each_limit_that_it_names(budget: Budget) -> None:
    normal = budget.normalised()
    for at_ms, changes in normal.schedule:
        before = normal.at(math.nextafter(at_ms, 0)).to_json()
        named = changes.to_json()
        assert at_ms > 0
        assert named
        assert all(before.get(name) != value for name, value in named.items())


@given(budgets(), st.floats(0, 1))
def test_limits_are_constant_between_two_entries(budget: Budget, share: float) -> None:
    moments = [0.0, *(at_ms for at_ms, _ in budget.schedule), 1000.0]
    for start, end in pairwise(moments):
        between = start + share * (end - start)
        if start <= between < end:
            assert budget.at(between) == budget.at(start)


@given(budgets(), TIMES)
def test_nothing_changes_before_the_next_change_is_due(budget: Budget, moment: float) -> None:
    due = budget.changes_after(moment)
    until = 1e9 if due is None else math.nextafter(due, 0)
    assert budget.at(until) == budget.at(moment)
