"""The client's side of a connection, without a socket."""

from dataclasses import replace

import pytest

from anytime_client.address import Address
from anytime_client.errors import AnswerError, ConnectionLostError, RequestError
from anytime_client.requests import InferRequest
from anytime_client.results import Result, Update
from anytime_client.session import ClientSession
from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode, Reason
from anytime_protocol.messages import Infer, Role, SetBudget
from anytime_protocol.session import Session
from client.factories import MAPS, PIXELS, READY, accepted, finished, update


class Pair:
    """A client's and a server's session, each fed with what the other writes."""

    def __init__(self):
        self.client = ClientSession(Address("http://there"))
        self.server = Session(Role.SERVER)
        self.send(READY)

    def send(self, *messages):
        for message in messages:
            self.server.send(message)
        for frame in self.server.outgoing():
            self.client.receive(frame)

    def receive(self):
        for frame in self.client.outgoing():
            self.server.receive(frame)
        return self.server.events()

    def infer(self, **options):
        return self.client.infer(InferRequest.make(PIXELS, **options)).id


@pytest.fixture
def pair():
    return Pair()


def test_a_request_goes_through_all_exits_to_its_result(pair):
    name = pair.infer()
    assert [type(event) for event in pair.receive()] == [Infer]
    pair.send(accepted(name), update(name, 1), update(name, 2), finished(name, 2, Reason.DEADLINE))
    events = [event for _, event in pair.client.events()]
    shown = [event for event in events if isinstance(event, Update)]
    assert [one.map.tolist() for one in shown] == [MAPS[0].tolist(), MAPS[1].tolist()]
    assert [one.changed_share for one in shown] == [None, pytest.approx(1 / 6)]
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.exit, result.reason, result.best) == (2, Reason.DEADLINE, shown[1])


def test_exits_that_are_passed_over_leave_gaps_that_deltas_reach_across(pair):
    name = pair.infer(model="ladder")
    pair.receive()
    updates = [update(name, 1), update(name, 2), update(name, 4, base=2)]
    pair.send(accepted(name), *updates, finished(name, 4))
    *shown, result = [event for _, event in pair.client.events()][1:]
    assert [(one.exit, one.side) for one in shown] == [(1, 240), (2, 240), (4, 480)]
    assert shown[-1].map.tolist() == MAPS[3].tolist()
    assert (result.exit, result.best) == (4, shown[-1])


def test_requests_are_told_apart(pair):
    first, second = pair.infer(), pair.infer(model="street")
    pair.receive()
    pair.send(accepted(second), accepted(first), update(second, 1), update(first, 1))
    pair.send(finished(first, 1))
    assert [name for name, _ in pair.client.events()] == [second, first, second, first, first]


def test_revisions_rise_and_stop_with_the_request(pair):
    name = pair.infer()
    for _ in range(2):
        pair.client.set_budget(name, Budget(max_exit=1))
    assert [event.rev for event in pair.receive() if isinstance(event, SetBudget)] == [1, 2]
    pair.send(accepted(name), update(name, 1), finished(name, 1))
    assert pair.client.set_budget(name, Budget()) is None
    pair.client.cancel(name)
    assert pair.client.outgoing() == []


def test_a_lost_connection_ends_every_request_with_one_error(pair):
    names = {pair.infer(), pair.infer()}
    pair.client.close(1012, "see you")
    events = pair.client.events()
    assert {name for name, _ in events} == names
    assert all(isinstance(event, ConnectionLostError) for _, event in events)
    assert "restarts" in str(events[0][1])
    pair.client.close(1000)
    assert pair.client.events() == []


def test_an_unknown_model_is_refused_with_the_names_of_those_there_are(pair):
    with pytest.raises(RequestError, match="street, pose") as caught:
        pair.infer(model="nope")
    assert (caught.value.code, caught.value.status) == (ErrorCode.UNKNOWN_MODEL, 404)


def test_one_request_too_many_is_refused_before_it_is_sent(pair):
    for _ in range(READY.limits.max_in_flight):
        pair.infer()
    with pytest.raises(RequestError, match="4 requests run") as caught:
        pair.infer()
    assert caught.value.code is ErrorCode.TOO_MANY_REQUESTS


def test_a_payload_that_does_not_decode_ends_the_connection(pair):
    name = pair.infer()
    pair.receive()
    pair.send(accepted(name), update(name, 1))
    broken = update(name, 2)
    other = pair.infer()
    pair.receive()
    pair.server.send(replace(broken, payload=b"\xff" * len(broken.payload)))
    for frame in pair.server.outgoing():
        pair.client.receive(frame)
    ends = dict(pair.client.events())
    assert isinstance(ends[name], AnswerError)
    assert isinstance(ends[other], ConnectionLostError)
    assert pair.client.closed.code == 4400


def test_messages_of_a_later_server_are_passed_over(pair):
    pair.client.receive('{"type": "weather", "id": "1"}')
    assert pair.client.closed is None
    assert pair.client.events() == []
