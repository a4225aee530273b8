"""Which of several schedulers gets a request."""

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


def test_the_one_with_the_least_work_is_asked_first_whatever_its_requests():
    each = schedulers(3)
    occupy(each[0], "a", "b")
    occupy(each[1], "c")
    assert route(each) == [2, 1]
    each[1].submit(job("d", max_exit=1), 0.0)
    each[2].submit(job("e"), 0.0)
    each[2].submit(job("f"), 0.0)
    each[2].submit(job("g"), 0.0)
    assert route(each) == [1, 0]


def test_a_slow_one_counts_as_loaded():
    each = schedulers(2)
    occupy(each[0], "a")
    occupy(each[1], "b")
    for _ in range(50):
        each[0].costs.observe_stage(0.01, 0.05)
    assert route(each) == [1, 0]


def test_one_alone_is_always_asked():
    assert route(schedulers(1)) == [0]


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
