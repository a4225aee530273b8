"""The conversation without any socket."""

from dataclasses import replace

import pytest

from anytime_client.address import Address, close_meaning, pauses, refusal
from anytime_client.conversation import Conversation
from anytime_client.errors import AnswerError, ConnectError, ConnectionLostError, RequestError
from anytime_client.questions import budget_of, question_of
from anytime_client.results import Result, Update
from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode, Reason
from anytime_protocol.messages import Infer, Role, SetBudget
from anytime_protocol.session import Session
from client.client_fakes import MAPS, PIXELS, READY, accepted, finished, update


class Table:
    """A conversation and the server's session, each fed with what the other writes."""

    def __init__(self):
        self.client = Conversation("http://there")
        self.server = Session(Role.SERVER)
        self.say(READY)

    def say(self, *messages):
        for message in messages:
            self.server.send(message)
        for frame in self.server.outgoing():
            self.client.receive(frame)

    def hear(self):
        for frame in self.client.outgoing():
            self.server.receive(frame)
        return self.server.events()

    def ask(self, **changes):
        request_id, _ = self.client.ask(question_of(PIXELS, **changes))
        return request_id


@pytest.fixture
def table():
    return Table()


def test_a_request_goes_through_all_exits_to_its_result(table):
    name = table.ask()
    assert [type(event) for event in table.hear()] == [Infer]
    table.say(accepted(name), update(name, 1), update(name, 2), finished(name, 2, Reason.DEADLINE))
    events = [event for _, event in table.client.events()]
    shown = [event for event in events if isinstance(event, Update)]
    assert [one.map.tolist() for one in shown] == [MAPS[0].tolist(), MAPS[1].tolist()]
    assert [one.changed_share for one in shown] == [None, pytest.approx(1 / 6)]
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.exit, result.reason, result.best) == (2, Reason.DEADLINE, shown[1])


def test_requests_are_told_apart(table):
    first, second = table.ask(), table.ask(model="street")
    table.hear()
    table.say(accepted(second), accepted(first), update(second, 1), update(first, 1))
    table.say(finished(first, 1))
    assert [name for name, _ in table.client.events()] == [second, first, second, first, first]


def test_revisions_rise_and_stop_with_the_request(table):
    name = table.ask()
    for _ in range(2):
        table.client.set_budget(name, Budget(max_exit=1))
    assert [event.rev for event in table.hear() if isinstance(event, SetBudget)] == [1, 2]
    table.say(accepted(name), update(name, 1), finished(name, 1))
    assert table.client.set_budget(name, Budget()) is None
    assert table.client.cancel(name) is False
    assert table.client.outgoing() == []


def test_a_lost_connection_ends_every_request_with_one_error(table):
    names = {table.ask(), table.ask()}
    table.client.close(1012, "see you")
    events = table.client.events()
    assert {name for name, _ in events} == names
    assert all(isinstance(event, ConnectionLostError) for _, event in events)
    assert "restarts" in str(events[0][1])
    table.client.close(1000)
    assert table.client.events() == []


def test_an_unknown_model_is_refused_with_the_names_of_those_there_are(table):
    with pytest.raises(RequestError, match="street, pose") as caught:
        table.ask(model="nope")
    assert (caught.value.code, caught.value.status) == (ErrorCode.UNKNOWN_MODEL, 404)


def test_one_request_too_many_is_refused_before_it_is_sent(table):
    for _ in range(READY.limits.max_in_flight):
        table.ask()
    with pytest.raises(RequestError, match="4 requests run") as caught:
        table.ask()
    assert caught.value.code is ErrorCode.TOO_MANY_REQUESTS


def test_a_payload_that_does_not_decode_ends_the_connection(table):
    name = table.ask()
    table.hear()
    table.say(accepted(name), update(name, 1))
    broken = update(name, 2)
    other = table.ask()
    table.hear()
    table.server.send(replace(broken, payload=b"\xff" * len(broken.payload)))
    for frame in table.server.outgoing():
        table.client.receive(frame)
    ends = dict(table.client.events())
    assert isinstance(ends[name], AnswerError)
    assert isinstance(ends[other], ConnectionLostError)
    assert table.client.closed.code == 4400


def test_messages_of_a_later_server_are_passed_over(table):
    table.client.receive('{"type": "weather", "id": "1"}')
    assert table.client.closed is None
    assert table.client.events() == []


def test_limits_beside_a_budget_tighten_it():
    assert budget_of(Budget(deadline_ms=100, max_exit=2), 80.0) == Budget(80.0, max_exit=2)
    schedule = ((40.0, Budget(max_exit=2)),)
    assert budget_of(Budget(schedule=schedule)).schedule == schedule


@pytest.mark.parametrize(
    ("url", "base", "socket"),
    [
        ("http://a:1/", "http://a:1", "ws://a:1/v1/stream"),
        ("https://a/some/path/", "https://a/some/path", "wss://a/some/path/v1/stream"),
        ("ws://a/v1/stream", "http://a", "ws://a/v1/stream"),
        ("a:8000", "http://a:8000", "ws://a:8000/v1/stream"),
    ],
)
def test_one_url_gives_all_others(url, base, socket):
    address = Address.parse(url)
    assert (address.base, address.socket_url) == (base, socket)


@pytest.mark.parametrize("url", ["", "ftp://a", "http://"])
def test_what_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(ConnectError, match=r"http://127\.0\.0\.1:8000"):
        Address.parse(url)


def test_a_refusal_is_the_servers_problem_or_somebody_elses_page():
    body = b'{"type":"/problems/draining","status":503,"code":"draining","detail":"bye"}'
    problem = refusal("http://x", 503, body)
    assert isinstance(problem, RequestError)
    assert problem.code is ErrorCode.DRAINING
    stranger = refusal("http://x/v1/models", 404, b"<h1>nginx</h1>")
    assert isinstance(stranger, AnswerError)
    assert "http://x/v1/models: found status 404 with '<h1>nginx</h1>'" in str(stranger)


def test_pauses_grow_and_add_up_to_the_time_allowed():
    steps = list(pauses(10.0))
    assert sum(steps) == pytest.approx(10.0)
    assert steps[0] <= 0.1 < max(steps) <= 5.0


def test_an_unknown_close_code_still_has_words():
    assert close_meaning(4999, "why") == "the server closed the connection (close code 4999: why)"
