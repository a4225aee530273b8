"""What a replica served in the last while."""

from dataclasses import replace

import pytest

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode, Reason
from anytime_server.core.decisions import JobFailed, JobFinished
from anytime_server.core.scaling import Served
from anytime_server.ray_serve.served import WINDOW_S, ServedMetrics
from server.factories import active_request
from server.fakes import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def metrics(clock):
    return ServedMetrics(2, clock)


def request_of(clock, *, age_s=0.1, queue_s=0.0, compute_s=0.05, deadline_ms=200.0, **changes):
    budget = Budget(deadline_ms=deadline_ms)
    request = active_request("a", print, clock.now - age_s, budget)
    request.queue_s, request.compute_s = queue_s, compute_s
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def finished(exit_=4, reason=Reason.COMPLETE):
    return JobFinished("a", reason, exit_, 0.0)


def failed(code):
    return JobFailed("a", code, "", 0.0)


async def test_nothing_served_is_good_and_idle(metrics):
    assert metrics.served() == Served()
    assert metrics.mean_compute_s() == 0.0


async def test_whole_answers_have_quality_slack_and_time(metrics, clock):
    for _ in range(20):
        metrics.ended(request_of(clock), finished(), clock.now)
    served = metrics.served()
    assert served.requests_hz == pytest.approx(20 / WINDOW_S)
    assert served.quality == 1.0
    assert served.slack == pytest.approx(0.5)
    assert served.busy == pytest.approx(20 * 0.05 / (2 * WINDOW_S))
    assert metrics.mean_compute_s() == pytest.approx(0.05)


async def test_an_answer_that_waited_counts_by_its_quality(metrics, clock):
    request = request_of(clock, queue_s=0.1, age_s=0.2)
    metrics.ended(request, finished(2, Reason.DEADLINE), clock.now)
    assert metrics.served().quality == pytest.approx(0.6 / 0.8)  # as the model's card has it


async def test_a_shallow_answer_that_did_not_wait_is_as_good_as_it_can_be(metrics, clock):
    request = request_of(clock, queue_s=0.01, age_s=0.2)
    metrics.ended(request, finished(1, Reason.DEADLINE), clock.now)
    assert metrics.served().quality == 1.0


async def test_what_a_client_asked_for_is_whole(metrics, clock):
    request = request_of(clock, queue_s=0.1)
    metrics.ended(request, finished(1, Reason.BUDGET), clock.now)
    assert metrics.served().quality == 1.0


async def test_missed_and_refused_requests_count_as_nothing(metrics, clock):
    metrics.active_requests(0, 1)
    metrics.ended(request_of(clock), failed(ErrorCode.DEADLINE_EXCEEDED), clock.now)
    metrics.rejected("street", ErrorCode.OVERLOADED, 0.001)
    assert metrics.served().quality == 0.0
    assert metrics.served().slack == pytest.approx(0.25)


async def test_what_no_replica_can_mend_does_not_count(metrics, clock):
    metrics.rejected("street", ErrorCode.DEADLINE_EXCEEDED, 0.001)  # by an idle one
    metrics.active_requests(0, 1)
    metrics.rejected("street", ErrorCode.TOO_MANY_PIXELS, 0.001)
    metrics.ended(request_of(clock), failed(ErrorCode.BAD_IMAGE), clock.now)
    metrics.ended(request_of(clock), finished(1, Reason.CANCELLED), clock.now)
    metrics.ended(request_of(clock, discarded=True), finished(1), clock.now)
    assert metrics.served() == Served()


async def test_requests_without_a_deadline_say_nothing_of_slack(metrics, clock):
    metrics.ended(request_of(clock, deadline_ms=None), finished(), clock.now)
    assert metrics.served() == replace(Served(), requests_hz=0.1, busy=0.05 / (2 * WINDOW_S))


async def test_what_is_long_ago_is_forgotten(metrics, clock):
    metrics.active_requests(0, 1)
    metrics.rejected("street", ErrorCode.OVERLOADED, 0.001)
    clock.now += WINDOW_S + 0.1
    assert metrics.served() == Served()


async def test_it_counts_what_metrics_count(metrics, clock):
    metrics.ended(request_of(clock), finished(), clock.now)
    assert b'anytime_requests_total{model="street",outcome="complete"' in metrics.expose()
