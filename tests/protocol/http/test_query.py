"""Budget and wishes in a URL."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.errors import BudgetError, FieldError
from anytime_protocol.http.query import read_query
from anytime_protocol.messages import OutputOptions
from protocol.factories import LIMITS, WANTS


@given(LIMITS, WANTS)
def test_limits_and_options_are_written_as_in_json_but_words_without_quotes(
    budget: Budget, want: OutputOptions
) -> None:
    wire = budget.to_json() | want.to_json()
    pairs = [(name, json.dumps(value).strip('"')) for name, value in wire.items()]
    assert read_query(pairs) == (budget, want)


def test_an_empty_query_limits_nothing() -> None:
    assert read_query([]) == (Budget(), OutputOptions())


def test_a_schedule_has_no_form_in_a_url() -> None:
    with pytest.raises(FieldError, match="unknown parameter"):
        read_query([("schedule", "[]")])


def test_a_malformed_parameter_is_an_error_that_names_it() -> None:
    for name, text, error in (
        ("deadline_ms", "", BudgetError),
        ("deadline_ms", "-1", BudgetError),
        ("deadline_ms", "nan", BudgetError),
        ("deadline_ms", "NaN", BudgetError),
        ("deadline_ms", "1e999", BudgetError),
        ("deadline_ms", "true", BudgetError),
        ("deadline_ms", "null", BudgetError),
        ("deadline_ms", '"80"', BudgetError),
        ("deadline_ms", "9" * 100, BudgetError),
        ("max_exit", "2.0", BudgetError),
        ("max_exit", '2,"x":3', BudgetError),
        ("max_exit", '2,"value":3', BudgetError),
        ("scale", "0.3", FieldError),
        ("scale", "half", FieldError),
        ("active", "yes", FieldError),
        ("encoding", "bmp", FieldError),
        ("colour", "true", FieldError),
    ):
        with pytest.raises(FieldError) as caught:
            read_query([(name, text)])
        assert type(caught.value) is error
        assert caught.value.field == f"query.{name}"


def test_a_parameter_stands_once() -> None:
    with pytest.raises(FieldError, match="twice"):
        read_query([("max_exit", "1"), ("max_exit", "2")])


@given(st.lists(st.tuples(st.sampled_from(["max_exit", "scale", "active"]), st.text()), max_size=3))
def test_foreign_queries_never_crash_the_reader(pairs: list[tuple[str, str]]) -> None:
    try:
        budget, want = read_query(pairs)
    except FieldError:
        return
    assert isinstance(budget, Budget)
    assert isinstance(want, OutputOptions)
