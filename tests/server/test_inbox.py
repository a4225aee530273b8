"""What waits for one client."""

import asyncio

from anytime_protocol.enums import Reason
from anytime_protocol.messages import Pong
from anytime_server.api.outbox import Inbox
from anytime_server.core.jobs import ExitMade, Final, StageResult
from anytime_server.engine.requests import Ended, Shown
from anytime_server.executor.base import Picture
from anytime_server.metrics import Metrics

RESULT = StageResult(0.5, 0.5, 0.5, 1.0)
EMPTY = Picture(1, 8, 8, None, None, None, None, None, 0.0)


def shown(exit_):
    return Shown(ExitMade("a", exit_, RESULT), EMPTY._replace(exit=exit_), 0.1, 1.0)


def ended(picture=None):
    return Ended(Final("a", Reason.COMPLETE, 4, RESULT, 1.0, 0.0), picture)


def all_of(inbox):
    items = []
    while (waiting := inbox.take_now()) is not None:
        items.append((waiting.item, waiting.skipped))
    return items


def test_a_newer_picture_takes_the_place_of_one_that_waits():
    metrics = Metrics()
    inbox = Inbox(metrics)
    sink = inbox.sink("a")
    for exit_ in (1, 2, 3):
        sink(shown(exit_))
    sink(ended())
    assert [(type(item), skipped) for item, skipped in all_of(inbox)] == [(Shown, 2), (Ended, 0)]
    assert b"conflated_updates_total 2.0" in metrics.expose()


def test_the_last_picture_comes_before_the_end_and_only_once():
    inbox = Inbox(Metrics())
    sink = inbox.sink("a")
    sink(shown(2))
    first = inbox.take_now()
    sink(ended(shown(2)))
    assert first.item.made.exit == 2
    assert [type(item) for item, _ in all_of(inbox)] == [Ended]


def test_a_picture_that_was_never_shown_comes_with_the_end():
    inbox = Inbox(Metrics())
    inbox.sink("a")(ended(shown(4)))
    assert [type(item) for item, _ in all_of(inbox)] == [Shown, Ended]


def test_an_id_can_be_used_again_after_its_end():
    inbox = Inbox(Metrics())
    inbox.sink("a")(ended(shown(4)))
    all_of(inbox)
    inbox.sink("a")(shown(1))
    assert len(all_of(inbox)) == 1


async def test_a_reader_sleeps_until_there_is_something():
    inbox = Inbox(Metrics())
    reading = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.wake()
    await asyncio.sleep(0)
    assert not reading.done()
    inbox.put("a", Pong(1))
    assert (await reading).item == Pong(1)
