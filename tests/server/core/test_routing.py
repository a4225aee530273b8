"""Which of several schedulers gets a request."""

from dataclasses import replace

from anytime_server.core.decisions import Admitted, RunJob
from anytime_server.core.routing import route
from anytime_server.core.scheduler import Scheduler
from server.core.factories import costs, job


def schedulers(count):
    return [Scheduler(costs()) for _ in range(count)]


def occupy(scheduler, *names):
    """Gives it jobs, and has it begin the first."""
    for name in names:
        assert isinstance(scheduler.submit(job(name), 0.0), Admitted)
    assert isinstance(scheduler.decide(0.0), RunJob)


def test_one_without_requests_is_taken():
    each = schedulers(3)
    occupy(each[0], "a")
    assert route(each, job("x"), 0.0) == 1


def test_the_one_that_is_free_first_is_taken_where_all_promise_the_same_exit():
    each = schedulers(3)
    occupy(each[0], "a", "b")
    occupy(each[1], "c")
    occupy(each[2], "d", "e", "f")
    assert route(each, job("x"), 0.0) == 1


def test_one_that_would_refuse_is_taken_only_if_all_do():
    each = schedulers(2)
    each[0].settings = replace(each[0].settings, max_jobs=1)
    occupy(each[0], "a")
    occupy(each[1], "b", "c", "d")
    assert route(each, job("x"), 0.0) == 1
    each[1].settings = replace(each[1].settings, max_jobs=3)
    assert route(each, job("x"), 0.0) in {0, 1}


def test_a_slow_one_is_avoided():
    each = schedulers(2)
    occupy(each[0], "a")
    occupy(each[1], "b")
    for _ in range(50):
        each[0].costs.observe_stage(0.01, 0.05)
    assert route(each, job("x"), 0.0) == 1


def test_an_offer_takes_nothing_and_a_job_goes_on_with_whoever_takes_it():
    first, second = schedulers(2)
    wanted = job("x")
    assert isinstance(first.offer(wanted, 0.0), Admitted)
    assert first.active == 0
    assert isinstance(second.submit(wanted, 0.0), Admitted)
    assert isinstance(second.decide(0.0), RunJob)


def test_a_job_is_released_only_before_anything_of_it_is_computed():
    scheduler, other = schedulers(2)
    occupy(scheduler, "a", "b")
    running = scheduler._running.job.id
    waiting = ({"a", "b"} - {running}).pop()
    assert not scheduler.release(running)
    assert not scheduler.release("nobody")
    assert scheduler.release(waiting)
    assert not scheduler.release(waiting)
    assert isinstance(other.submit(job(waiting), 0.0), Admitted)
