"""The bodies of the REST resources: one class for both sides, strict for a server only."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from anytime_protocol.budget import Budget
from anytime_protocol.enums import RequestState, ScheduleClock
from anytime_protocol.errors import BudgetError, FieldError
from anytime_protocol.http.problems import Problem
from anytime_protocol.resources import (
    BudgetPatch,
    Health,
    LoadCap,
    ModelList,
    RequestStatus,
    ServerBudget,
    ServerBudgetChange,
    ServerBudgetStatus,
)
from protocol.factories import JSON, LIMITS, STREET, budgets, failed, finished

NIGHTLY = ServerBudget(
    max_exit=4,
    load_caps=(LoadCap(2.0, 1.0, 2),),
    floors=((0, 4), (1, 3)),
    clock=ScheduleClock.DAILY,
    schedule=((0.0, Budget(max_exit=3)), (3.6e6, Budget(compute_gmacs=20.0))),
)
BODIES = [
    ServerBudgetChange(NIGHTLY),
    ServerBudgetStatus(NIGHTLY, Budget(max_exit=2), 5, 3, 1.08, load_s=0.25),
    ServerBudgetStatus(ServerBudget(), Budget(), 0, 0, 1.0),
    BudgetPatch(Budget(deadline_ms=200.0, schedule=((4.0, Budget(max_exit=1)),)), rev=1),
    BudgetPatch(Budget()),
    RequestStatus("r1", "street", RequestState.RUNNING, 1, 4, 31.2, 0, Budget()),
    RequestStatus(
        "r1", "street", RequestState.FINISHED, 2, 4, 67.6, 1, Budget(), final=finished("r1", 2)
    ),
    RequestStatus("r1", "street", RequestState.FAILED, 0, 4, 3.0, 0, Budget(), error=failed("r1")),
    ModelList((STREET,)),
    Health("ready", {"street": "native"}),
]


def test_every_body_survives_the_wire() -> None:
    for body in BODIES:
        assert type(body).from_json(json.loads(json.dumps(body.to_json()))) == body


def test_a_body_is_the_same_whether_it_is_written_here_or_by_fastapi() -> None:
    for body in BODIES:
        adapter = TypeAdapter(type(body))
        assert adapter.dump_python(body, mode="json", by_alias=True) == body.to_json()
        assert adapter.validate_python(body.to_json()) == body


def test_unknown_fields_are_refused_by_a_server_and_passed_over_by_a_client() -> None:
    for body in BODIES:
        wire = body.to_json() | {"mood": "good"}
        assert type(body).from_json(wire, ignore_unknown=True) == body
        with pytest.raises(FieldError, match="mood: found an unknown field"):
            type(body).from_json(wire)


def test_a_client_reads_the_budget_of_a_later_server() -> None:
    status = BODIES[1]
    wire = status.to_json()
    wire["budget"]["ramp"] = 1
    wire["budget"]["load_caps"][0]["colour"] = "red"
    wire["budget"]["schedule"][0]["mood"] = "good"
    wire["effective"]["ramp"] = 2
    assert ServerBudgetStatus.from_json(wire, ignore_unknown=True) == status


@given(LIMITS, budgets(), st.sampled_from(ScheduleClock))
def test_a_server_budget_survives_the_wire(
    limits: Budget, budget: Budget, clock: ScheduleClock
) -> None:
    own = ServerBudget(max_exit=limits.max_exit, clock=clock, schedule=budget.schedule)
    assert ServerBudget.from_json(json.loads(json.dumps(own.to_json()))) == own


def test_an_entry_of_the_schedule_replaces_limits_and_so_may_lift_them() -> None:
    wire = {"max_exit": 2, "schedule": [{"at_ms": 1000, "max_exit": 4}]}
    limits = ServerBudget.from_json(wire).limits
    assert [limits.at(ms).max_exit for ms in (999.9, 1000.0, 1e9)] == [2, 4, 4]


def test_defaults_are_left_out() -> None:
    assert ServerBudget().to_json() == {}
    assert ServerBudget.from_json({}) == ServerBudget()
    assert ServerBudget.from_json({"clock": "elapsed"}).to_json() == {}


def test_a_malformed_server_budget_is_refused_and_its_field_named() -> None:
    for wire, field in (
        ([], "budget"),
        ({"max_exits": 3}, "budget.max_exits"),
        ({"max_exit": 0}, "budget.max_exit"),
        ({"load_caps": [{"above_s": 1, "below_s": 2, "max_exit": 1}]}, "load_caps[0].below_s"),
        ({"load_caps": [{"above_s": 1, "below_s": 0.5}]}, "budget.load_caps[0].max_exit"),
        ({"load_caps": [LoadCap(1.0, 0.5, 1).to_json() | {"x": 1}]}, "load_caps[0].x"),
        ({"load_caps": [LoadCap(1.0, 0.5, 1).to_json()] * 65}, "budget.load_caps"),
        ({"floors": {"8": 1}}, "budget.floors.8"),
        ({"floors": {"1": 0}}, "budget.floors.1"),
        ({"floors": []}, "budget.floors"),
        ({"clock": "lunar"}, "budget.clock"),
        ({"schedule": [{"at_ms": 5}, {"at_ms": 5}]}, "budget.schedule[1].at_ms"),
        ({"schedule": [{"at_ms": 5, "max_exit": "2"}]}, "budget.schedule[0].max_exit"),
        ({"schedule": [{"at_ms": 5, "schedule": []}]}, "budget.schedule[0].schedule"),
    ):
        for read in (ServerBudget.from_json, lambda w: ServerBudgetChange.from_json({"budget": w})):
            with pytest.raises(BudgetError) as caught:
                read(wire)
            assert caught.value.field.endswith(field)


def test_a_body_without_its_budget_is_malformed_but_no_malformed_budget() -> None:
    for body in (BudgetPatch, ServerBudgetChange):
        with pytest.raises(FieldError, match="budget: found nothing, expected a JSON object") as e:
            body.from_json({})
        assert not isinstance(e.value, BudgetError)


@given(JSON)
def test_foreign_json_never_crashes_a_reader(value: object) -> None:
    for body in (*BODIES, Problem):
        kind = body if isinstance(body, type) else type(body)
        try:
            kind.from_json(value)
        except FieldError:
            continue


def test_the_schema_of_a_body_has_its_fields_and_ranges() -> None:
    schema = TypeAdapter(ServerBudgetStatus).json_schema(mode="serialization")
    own = schema["$defs"]["ServerBudget"]["properties"]
    assert own["max_exit"]["minimum"] == 1
    assert own["schedule"]["items"] == {"$ref": "#/$defs/ScheduleEntry"}
    assert own["floors"]["additionalProperties"]["minimum"] == 1
    assert schema["required"] == ["budget", "effective", "in_flight", "queued", "slowdown"]
