"""The line to a slow reader: the newest update only, and everything else in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.send_queue import QueuedItem, SendQueue

IDS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["update", "put", "seal", "end", "take", "take"]), IDS), max_size=60
)


def _drain(outbox: SendQueue[int]) -> list[QueuedItem[int]]:
    taken: list[QueuedItem[int]] = []
    while (waiting := outbox.take()) is not None:
        taken.append(waiting)
    return taken


@given(STEPS)
def test_nothing_but_older_updates_is_lost_and_no_request_is_reordered(
    steps: list[tuple[str, str]],
) -> None:
    outbox: SendQueue[int] = SendQueue()
    put_in: dict[str, list[tuple[int, str]]] = {"a": [], "b": [], "c": []}
    out: list[QueuedItem[int]] = []
    over: set[str] = set()
    for number, (step, name) in enumerate(steps):
        if step == "take":
            waiting = outbox.take()
            if waiting is not None:
                out.append(waiting)
        elif name not in over:
            put_in[name].append((number, step))
            if step == "update":
                outbox.update(name, number)
            else:
                outbox.put(name, number, terminal=step == "end", seals=step == "seal")
            if step == "end":
                over.add(name)
    out += _drain(outbox)
    assert len(outbox) == 0
    for name, things in put_in.items():
        mine = [waiting for waiting in out if waiting.request_id == name]
        numbers = [waiting.item for waiting in mine]
        assert numbers == sorted(numbers)
        kept = {number for number, step in things if step != "update"}
        assert kept <= set(numbers)
        updates = [number for number, step in things if step == "update"]
        if updates:
            assert updates[-1] in numbers
        seals = [index for index, (_, step) in enumerate(things) if step == "seal"]
        before = [index - 1 for index in seals if index and things[index - 1][1] == "update"]
        assert {things[index][0] for index in before} <= set(numbers)
        sent = [waiting for waiting in mine if waiting.item in updates]
        assert len(sent) + sum(waiting.skipped for waiting in sent) == len(updates)
        assert [waiting.terminal for waiting in mine].count(True) == (name in over)
        assert all(not waiting.terminal for waiting in mine[:-1])


@given(STEPS)
def test_there_waits_at_most_one_update_of_each_request(steps: list[tuple[str, str]]) -> None:
    outbox: SendQueue[str] = SendQueue()
    for step, name in steps:
        if step == "take":
            outbox.take()
        elif step == "update":
            outbox.update(name, "update")
        else:
            outbox.put(name, "other")
    waiting = []
    while (thing := outbox.take()) is not None:
        waiting.append((thing.request_id, thing.item))
    assert all(waiting.count((name, "update")) <= 1 for name in "abc")


def test_a_newer_update_takes_the_place_of_the_older_one_and_counts_it() -> None:
    outbox: SendQueue[int] = SendQueue()
    assert [outbox.update("a", 1), outbox.update("b", 1)] == [0, 0]
    assert [outbox.update("a", 2), outbox.update("a", 3)] == [1, 2]
    assert len(outbox) == 2
    assert outbox.take() == QueuedItem("a", 3, skipped=2)
    assert outbox.update("a", 4) == 0
    assert _drain(outbox) == [QueuedItem("b", 1), QueuedItem("a", 4)]


def test_an_update_goes_behind_what_was_said_about_its_request_since() -> None:
    outbox: SendQueue[str] = SendQueue()
    outbox.update("a", "exit 1")
    outbox.put("a", "budget applied")
    outbox.put("b", "accepted")
    assert outbox.update("a", "exit 2") == 1
    items = []
    while (waiting := outbox.take()) is not None:
        items.append((waiting.item, waiting.skipped))
    assert items == [("budget applied", 0), ("accepted", 0), ("exit 2", 1)]


def test_the_newest_update_comes_before_the_end_and_nothing_after_it() -> None:
    outbox: SendQueue[str] = SendQueue()
    outbox.update("a", "exit 1")
    outbox.update("a", "exit 2")
    outbox.put("a", "final", terminal=True)
    for put_in in (outbox.update, outbox.put):
        with pytest.raises(ValueError, match="over"):
            put_in("a", "late")
    taken = [outbox.take(), outbox.take(), outbox.take()]
    assert taken == [QueuedItem("a", "exit 2", 1), QueuedItem("a", "final", terminal=True), None]


def test_an_id_may_be_used_again_once_its_end_was_taken() -> None:
    outbox: SendQueue[str] = SendQueue()
    outbox.put("a", "final", terminal=True)
    outbox.take()
    assert outbox.update("a", "exit 1") == 0
