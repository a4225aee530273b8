"""Bodies of the HTTP interface: read by the protocol's classes, unknown fields ignored."""

import pytest

from anytime_client import AnswerError, AsyncClient, Budget, ServerBudget
from anytime_protocol.enums import ScheduleClock
from anytime_protocol.resources import LoadCap
from client.fakes import fake_http_server

WITH_EVERYTHING = ServerBudget(
    max_exit=2,
    load_caps=(LoadCap(4.0, 2.0, 1),),
    floors=((0, 4),),
    clock=ScheduleClock.DAILY,
    schedule=((60_000.0, Budget(max_exit=4)),),
)


async def test_every_part_of_the_operators_budget_is_set_and_read():
    with fake_http_server() as server:
        async with AsyncClient(server.url) as client:
            for budget in (Budget(max_exit=2), WITH_EVERYTHING):
                assert (await client.set_server_budget(budget)).budget.to_json() == budget.to_json()
            status = await client.server_budget()
    assert status.budget == WITH_EVERYTHING
    assert (status.in_flight, status.queued, status.slowdown) == (1, 2, 1.25)


async def test_fields_of_a_later_server_are_ignored_at_every_depth():
    with fake_http_server() as server:
        server.budget |= {"budget": {"max_exit": 2, "clock": "elapsed", "mood": "calm"}, "rain": 1}
        async with AsyncClient(server.url) as client:
            assert (await client.server_budget()).budget == ServerBudget(max_exit=2)


async def test_a_malformed_body_is_an_error_that_names_url_and_field():
    with fake_http_server() as server:
        server.budget["budget"] = {"max_exit": "two"}
        async with AsyncClient(server.url) as client:
            with pytest.raises(AnswerError, match=r"/v1/budget: budget\.max_exit: found the text"):
                await client.server_budget()
