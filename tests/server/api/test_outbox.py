"""What waits to be written to one client."""

import asyncio

from anytime_protocol.enums import Reason
from anytime_protocol.messages import Pong
from anytime_server.api.outbox import Outbox
from anytime_server.core.decisions import JobFinished
from anytime_server.engine.base import ExitRendered, RequestEnded
from anytime_server.metrics import Metrics
from server.factories import exit_event


def ended(best=None):
    return RequestEnded(JobFinished("a", Reason.COMPLETE, 4, 0.0), best)


def all_of(outbox):
    items = []
    while (queued := outbox.take_now()) is not None:
        items.append((queued.item, queued.skipped))
    return items


def test_a_newer_exit_takes_the_place_of_one_that_waits():
    metrics = Metrics()
    outbox = Outbox(metrics)
    on_event = outbox.callback("a")
    for exit_ in (1, 2, 3):
        on_event(exit_event(exit_))
    on_event(ended())
    assert [(type(item), skipped) for item, skipped in all_of(outbox)] == [
        (ExitRendered, 2),
        (RequestEnded, 0),
    ]
    assert b"conflated_updates_total 2.0" in metrics.expose()


def test_the_last_exit_comes_before_the_end_and_only_once():
    outbox = Outbox(Metrics())
    on_event = outbox.callback("a")
    on_event(exit_event(2))
    first = outbox.take_now()
    on_event(ended(exit_event(2)))
    assert first.item.report.exit == 2
    assert [type(item) for item, _ in all_of(outbox)] == [RequestEnded]


def test_an_exit_that_was_never_put_in_comes_with_the_end():
    outbox = Outbox(Metrics())
    outbox.callback("a")(ended(exit_event(4)))
    assert [type(item) for item, _ in all_of(outbox)] == [ExitRendered, RequestEnded]


def test_an_id_can_be_used_again_after_its_end():
    outbox = Outbox(Metrics())
    outbox.callback("a")(ended(exit_event(4)))
    all_of(outbox)
    outbox.callback("a")(exit_event(1))
    assert len(all_of(outbox)) == 1


async def test_a_reader_sleeps_until_there_is_something():
    outbox = Outbox(Metrics())
    reading = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.wake()
    await asyncio.sleep(0)
    assert not reading.done()
    outbox.put("a", Pong(1))
    assert (await reading).item == Pong(1)
