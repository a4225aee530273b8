"""`/v1/stream` over real sockets: a fake executor behind, the protocol's client in front."""

import asyncio
import gc
import json
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

import numpy as np
import pytest
from starlette.websockets import WebSocketState
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from anytime_protocol.arrays.segments import split, unpack
from anytime_protocol.budget import Budget
from anytime_protocol.enums import PROTOCOL, CloseCode, Effect, Encoding, ErrorCode, Reason
from anytime_protocol.http import headers
from anytime_protocol.messages import (
    Accepted,
    BudgetApplied,
    Cancel,
    Failed,
    Finished,
    Infer,
    OutputOptions,
    Ping,
    Pong,
    Ready,
    Role,
    SetBudget,
    Update,
)
from anytime_protocol.session import Session
from anytime_server.api.websocket import WebsocketConnection
from server.api.clients import assert_problem
from server.factories import SIZE, STREET, image_file
from server.fakes import FakeExecutor


class Client:
    """The protocol's client session on a websocket."""

    def __init__(self, socket, *, text=False):
        self.socket = socket
        self.session = Session(Role.CLIENT, text=text)

    async def say(self, *messages):
        for message in messages:
            self.session.send(message)
        for frame in self.session.outgoing():
            await self.socket.send(frame)

    async def hear(self):
        while True:
            events = self.session.events()
            if events:
                self.session._events = events[1:] + self.session._events
                return events[0]
            async with asyncio.timeout(10):
                self.session.receive(await self.socket.recv())

    async def story(self, request_id="r"):
        """All that is said about one request, to its end."""
        told = []
        while not told or not isinstance(told[-1], Finished | Failed):
            message = await self.hear()
            if getattr(message, "id", None) == request_id:
                told.append(message)
        return told

    async def closed(self):
        async with asyncio.timeout(10):
            await self.socket.wait_closed()
        return self.socket.close_code


@asynccontextmanager
async def client(live, *, text=False, **changes):
    values = {"subprotocols": [PROTOCOL], "compression": None, "max_size": 2**28, "proxy": None}
    async with connect(live.stream_url, **values | changes) as socket:
        one = Client(socket, text=text)
        assert isinstance(await one.hear(), Ready)
        yield one


def infer(request_id="r", **changes):
    return Infer(request_id, "street", image_file(), **changes)


async def test_a_request_is_accepted_updated_and_finished(live):
    async with client(live) as one:
        await one.say(infer())
        first, *updates, last = await one.story()
        assert isinstance(first, Accepted)
        assert (first.exits, first.predicted_exit) == (4, 4)
        assert all(isinstance(update, Update) for update in updates)
        assert updates[-1].exit == 4
        assert sum(1 + update.skipped for update in updates) == 4
        assert (last.exit, last.reason, last.gmacs) == (4, Reason.COMPLETE, 10.0)
        assert last.compute_ms == pytest.approx(90.0)


async def test_ready_tells_models_and_limits(serve):
    async with (
        serve(max_pixels=12_345) as live,
        connect(live.stream_url, subprotocols=[PROTOCOL], proxy=None) as socket,
    ):
        ready = json.loads(await socket.recv())
        assert [model["name"] for model in ready["models"]] == ["street", "pose"]
        assert ready["limits"]["max_pixels"] == 12_345
        assert socket.subprotocol == PROTOCOL


async def test_deltas_apply_to_what_was_sent(live):
    async with client(live) as one:
        want = OutputOptions(Encoding.DELTA, scale=0.5, confidence=True)
        await one.say(infer(want=want))
        held, exit_ = {}, 0
        for update in (await one.story())[1:-1]:
            for part, piece in zip(update.parts, split(update.parts, update.payload), strict=True):
                assert part.base in {None, exit_}
                held[part.name] = unpack(part, piece, held.get(part.name))
                assert part.shape == (SIZE[0] // 2, SIZE[1] // 2)
            exit_ = update.exit
        array = np.frombuffer(held["map"], np.uint8).reshape(SIZE[0] // 2, SIZE[1] // 2)
        assert set(np.unique(array)) == {0, 4}
        assert set(np.unique(np.frombuffer(held["confidence"], np.uint8))) == {0, 40}


async def test_png_arrays_have_8_bits_a_pixel(live):
    async with client(live) as one:
        await one.say(infer(want=OutputOptions(Encoding.PNG, confidence=True, active=True)))
        update = (await one.story())[-2]
        pieces = split(update.parts, update.payload)
        assert [part.encoding for part in update.parts] == [Encoding.PNG] * 3
        assert [bytes(piece)[24] for piece in pieces] == [8] * 3


async def test_a_text_client_is_answered_in_text(live):
    async with client(live, text=True) as one:
        await one.say(infer(want=OutputOptions(progress=False)))
        async with asyncio.timeout(10):
            frames = [await one.socket.recv() for _ in range(3)]
        assert all(isinstance(frame, str) for frame in frames)
        assert [json.loads(frame)["type"] for frame in frames] == ["accepted", "update", "final"]
        assert json.loads(frames[1])["payload"]


async def test_many_requests_share_a_connection(live):
    async with client(live) as one:
        names = [f"r{k}" for k in range(8)]
        await one.say(*(infer(name, want=OutputOptions(progress=False)) for name in names))
        ends = {}
        while len(ends) < len(names):
            message = await one.hear()
            if isinstance(message, Finished | Failed):
                assert message.id not in ends
                ends[message.id] = message
        assert {end.reason for end in ends.values()} == {Reason.COMPLETE}


async def test_a_pose_has_keypoints_and_heatmaps_on_request(live):
    async with client(live) as one:
        want = OutputOptions(progress=False, heatmaps=True)
        await one.say(Infer("r", "pose", image_file(), want=want))
        _, update, _ = await one.story()
        assert update.keypoints[2] == (5.0, 6.0, 1.0)
        assert [(p.name, p.shape, p.dtype) for p in update.parts] == [
            ("heatmaps", (3, 4, 5), "float16")
        ]


async def hold_at(live, stage, name="r"):
    """Has the executor wait in a stage, and returns once it does."""
    log = live.executor.log
    while not any(e[0] == "run" and e[1].endswith(name) and e[2] == stage for e in log):
        await asyncio.sleep(0.001)


def stop_in(live, stage):
    live.executor.on_stage = lambda job, s: live.executor.gate.clear() if s == stage else None


async def test_a_cancel_ends_the_request_in_the_middle_of_a_stage(live):
    stop_in(live, 3)
    async with client(live) as one:
        await one.say(infer())
        await hold_at(live, 3)
        await one.say(Cancel("r"), Cancel("r"))
        *_, last = await one.story()
        assert last.reason is Reason.CANCELLED
        assert live.executor.limits.last_stage == 0
        live.executor.gate.set()
        live.executor.on_stage = lambda job, s: None
        await one.say(Cancel("r"), infer("again"))
        assert (await one.story("again"))[-1].reason is Reason.COMPLETE


async def test_a_cancel_that_overtakes_the_admission_is_obeyed(live):
    live.executor.gate.clear()
    async with client(live) as one:
        await one.say(infer(), Cancel("r"))
        *_, last = await one.story()
        assert (last.reason, last.exit, last.confidence) == (Reason.CANCELLED, 0, None)


async def test_a_new_budget_takes_effect_in_the_middle_of_a_stage(live):
    stop_in(live, 3)
    async with client(live) as one:
        await one.say(infer())
        await hold_at(live, 3)
        await one.say(SetBudget("r", 5, Budget(max_exit=2)))
        told = await one.story()
        answers = [m for m in told if isinstance(m, BudgetApplied)]
        assert (answers[0].rev, answers[0].at_exit, answers[0].effect) == (5, 2, Effect.APPLIED)
        assert told[-1].reason is Reason.BUDGET
        assert told[-1].exit == 2


async def test_a_budget_that_overtakes_the_admission_is_applied(live):
    async with client(live) as one:
        await one.say(infer(), SetBudget("r", 1, Budget(max_exit=1)))
        told = await one.story()
        assert told[-1].exit == 1
        assert [m.effect for m in told if isinstance(m, BudgetApplied)] == [Effect.APPLIED]


async def test_every_budget_message_is_answered(live):
    live.executor.gate.clear()
    async with client(live) as one:
        await one.say(infer())
        await hold_at(live, 1)
        await one.socket.send('{"type":"budget","id":"r","rev":2,"budget":{"max_exit":3}}')
        await one.socket.send('{"type":"budget","id":"r","rev":2,"budget":{"max_exit":3}}')
        await one.socket.send('{"type":"budget","id":"r","rev":3,"budget":{"max_exit":0}}')
        await one.socket.send('{"type":"budget","id":"nobody","rev":1,"budget":{}}')
        found = []
        while len(found) < 4:
            message = await one.hear()
            if isinstance(message, BudgetApplied):
                found.append(message.effect)
        assert found == [Effect.APPLIED, Effect.STALE, Effect.REJECTED, Effect.GONE]


@pytest.fixture
def slow_admission(live, monkeypatch):
    """Requests are admitted when the event is set."""
    may_admit, submit = asyncio.Event(), live.state.engine.submit

    async def submit_later(*arguments, **named):
        await may_admit.wait()
        return await submit(*arguments, **named)

    monkeypatch.setattr(live.state.engine, "submit", submit_later)
    return may_admit


async def test_budgets_are_answered_in_order_before_admission_too(live, slow_admission):
    async with client(live) as one:
        await one.say(infer())
        for rev, max_exit in ((5, 2), (5, 2), (4, 2), (6, 0), (6, 1)):
            budget = {"type": "budget", "id": "r", "rev": rev, "budget": {"max_exit": max_exit}}
            await one.socket.send(json.dumps(budget))
        answers = []
        while len(answers) < 5:
            message = await one.hear()
            if isinstance(message, BudgetApplied):
                answers.append((message.rev, message.effect))
        assert answers == [
            (5, Effect.APPLIED),
            (5, Effect.STALE),
            (4, Effect.STALE),
            (6, Effect.REJECTED),
            (6, Effect.APPLIED),
        ]
        slow_admission.set()
        assert (await one.story())[-1].exit == 1


async def test_a_client_that_leaves_between_budget_and_admission_is_no_error(
    live, monkeypatch, caplog
):
    closed, submit, close = asyncio.Event(), live.state.engine.submit, Session.close

    async def submit_until_closed(*arguments, **named):
        request = await submit(*arguments, **named)
        await closed.wait()
        return request

    def note_close(session, *arguments):
        close(session, *arguments)
        closed.set()

    live.executor.gate.clear()
    monkeypatch.setattr(live.state.engine, "submit", submit_until_closed)
    async with client(live) as one:
        await one.say(infer(), SetBudget("r", 1, Budget(max_exit=1)))
        await hold_at(live, 1)
        monkeypatch.setattr(Session, "close", note_close)
        one.socket.transport.abort()
        async with asyncio.timeout(5):
            while live.state.websockets or live.state.engine.server_budget().in_flight:
                await asyncio.sleep(0.001)
    gc.collect()
    assert not caplog.records


async def test_a_ping_is_answered_while_the_executor_computes(live):
    live.executor.gate.clear()
    async with client(live) as one:
        await one.say(infer())
        await hold_at(live, 1)
        await one.say(Ping(2**53))
        message = await one.hear()
        while not isinstance(message, Pong):
            message = await one.hear()
        assert message.nonce == 2**53
        await (await one.socket.ping())


async def test_who_comes_first_goes_in_first(live):
    async with client(live) as one:
        for number in range(20):
            first, second = f"a{number}", f"b{number}"
            await one.say(infer(first), infer(second))
            told = []
            while sum(isinstance(message, Finished) for message in told) < 2:
                told.append(await one.hear())
            assert [m.id for m in told if isinstance(m, Accepted)] == [first, second]


async def test_leaving_cancels_all_requests(live):
    live.executor.gate.clear()
    async with client(live) as one:
        await one.say(infer("a"), infer("b"))
        await hold_at(live, 1, "a")
    async with asyncio.timeout(5):
        while live.state.engine.server_budget().in_flight or live.state.websockets:
            await asyncio.sleep(0.001)


async def test_a_vanished_client_cancels_all_requests(live):
    live.executor.gate.clear()
    async with client(live) as one:
        await one.say(infer("a"))
        await hold_at(live, 1, "a")
        one.socket.transport.abort()
        async with asyncio.timeout(5):
            while live.state.engine.server_budget().in_flight:
                await asyncio.sleep(0.001)


async def test_a_slow_reader_skips_to_the_newest_map(live):
    big = image_file("PNG", (2000, 2000))
    async with client(live, ping_interval=None) as one:
        one.socket.transport.pause_reading()
        one.socket.recv_messages.pause = lambda: None
        await one.say(Infer("r", "street", big, "image/png"))
        while live.state.engine.server_budget().in_flight or not live.executor.log:
            await asyncio.sleep(0.001)
        one.socket.transport.resume_reading()
        *_, last = told = await one.story()
        updates = [message for message in told if isinstance(message, Update)]
        assert last.exit == updates[-1].exit == 4
        assert sum(1 + update.skipped for update in updates) == 4
        assert len(updates) < 4
        metrics = (await live.http.get("/metrics")).text
        assert f"anytime_websocket_conflated_updates_total {4 - len(updates)}.0" in metrics


@pytest.mark.slow
async def test_a_client_that_does_not_take_its_end_is_closed_with_1013(serve):
    async with serve(send_timeout_s=0.2) as live:
        big = image_file("PNG", (1400, 1400))
        async with client(live, max_queue=1, ping_interval=None) as one:
            one.socket.transport.pause_reading()
            one.socket.recv_messages.pause = lambda: None
            requests = [
                Infer(f"r{k}", "street", big, "image/png", want=OutputOptions(progress=False))
                for k in range(8)
            ]
            await one.say(*requests)
            async with asyncio.timeout(20):
                while live.state.websockets:
                    await asyncio.sleep(0.01)
            one.socket.transport.resume_reading()
            assert await one.closed() in {CloseCode.TRY_AGAIN_LATER, 1006}
    assert live.state.engine.server_budget().in_flight == 0


# Bad input.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"payload": b"not an image"}, ErrorCode.BAD_IMAGE),
        ({"payload": image_file()[:-300]}, ErrorCode.BAD_IMAGE),
        ({"media_type": "image/gif"}, ErrorCode.UNSUPPORTED_MEDIA_TYPE),
        ({"model": "nobody"}, ErrorCode.UNKNOWN_MODEL),
        ({"budget": Budget(compute_gmacs=0.1)}, ErrorCode.BUDGET_TOO_SMALL),
        ({"budget": Budget(deadline_ms=1)}, ErrorCode.DEADLINE_EXCEEDED),
    ],
)
async def test_a_bad_request_gets_an_error_and_the_connection_goes_on(live, change, code):
    async with client(live) as one:
        values = {"id": "r", "model": "street", "payload": image_file()} | change
        await one.say(Infer(**values))
        failed = (await one.story())[-1]
        assert failed.code is code
        assert (failed.needed_ms is not None) == (code is ErrorCode.DEADLINE_EXCEEDED)
        await one.say(infer("good"))
        assert (await one.story("good"))[-1].reason is Reason.COMPLETE


@pytest.mark.parametrize(
    ("field", "value"),
    [("deadline_ms", -1), ("deadline_ms", None), ("max_exit", 1.5), ("nonsense", 1)],
)
async def test_a_nonsense_budget_is_named(live, field, value):
    async with client(live) as one:
        header = {"type": "infer", "id": "r", "model": "street", "media_type": "image/jpeg"}
        header |= {"budget": {field: value}, "payload": "AAAA"}
        await one.socket.send(json.dumps(header))
        message = json.loads(await one.socket.recv())
        assert message["code"] == "bad-budget"
        assert message["field"] == f"budget.{field}"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("not json", CloseCode.BAD_MESSAGE),
        ('{"type":"final","id":"r"}', CloseCode.BAD_MESSAGE),
        ('{"type":"ping","nonce":NaN}', CloseCode.BAD_MESSAGE),
        (b"\0\0\0", CloseCode.BAD_MESSAGE),
        (b"\0\0\0\7\0\0\0\2{}", CloseCode.UNSUPPORTED_DATA),
        (b"\0\0\0\0\0\0\0\2\xff\xff", CloseCode.INVALID_TEXT),
        (b"\0\0\0\0\0\x10\0\0{}", CloseCode.TOO_BIG),
        ('{"type":"ping","nonce":' + "1" * 300_000 + "}", CloseCode.TOO_BIG),
    ],
)
async def test_what_cannot_be_answered_closes_the_connection_with_its_code(live, frame, code):
    async with client(live) as one, client(live) as other:
        await one.socket.send(frame)
        assert await one.closed() == code
        await other.say(infer())
        assert (await other.story())[-1].reason is Reason.COMPLETE


async def test_an_id_in_use_closes_the_connection(live):
    live.executor.gate.clear()
    async with client(live) as one:
        await one.say(infer())
        for frame in _again(infer()):
            await one.socket.send(frame)
        assert await one.closed() == CloseCode.DUPLICATE_ID


def _again(message):
    session = Session(Role.CLIENT)
    session.receive(json.dumps(Ready("x", ()).to_json()))
    session.send(message)
    return session.outgoing()


async def test_one_request_too_many_is_refused_and_stubbornness_ends_the_connection(serve):
    async with serve(max_in_flight=2) as live:
        live.executor.gate.clear()
        async with client(live) as one:
            await one.say(infer("a"), infer("b"))
            refused = []
            for name in "cdef":
                for frame in _again(infer(name)):
                    await one.socket.send(frame)
            async with asyncio.timeout(10):
                with suppress(ConnectionClosed):
                    async for frame in one.socket:
                        message = json.loads(frame)
                        if message["type"] == "error":
                            refused.append(message["code"])
            assert refused == ["too-many-requests"] * 2
            assert one.socket.close_code == CloseCode.TOO_MANY_IN_FLIGHT


# Refusals before the connection is accepted.


async def refused(live, status, code, **changes):
    with pytest.raises(InvalidStatus) as caught:
        await connect(live.stream_url, **{"subprotocols": [PROTOCOL], "proxy": None} | changes)
    response = caught.value.response
    assert response.status_code == status
    assert json.loads(response.body)["code"] == code


async def test_a_connection_without_the_subprotocol_is_refused(live):
    await refused(live, 400, "bad-request", subprotocols=None)


async def test_a_page_of_another_origin_is_refused(live):
    await refused(live, 403, "forbidden", origin="http://evil.example")
    async with client(live, origin=f"http://127.0.0.1:{live.port}"):
        pass


async def test_a_token_is_needed_where_there_is_one(serve):
    async with serve(token="secret") as live:
        await refused(live, 401, "unauthorized")
        await refused(live, 401, "unauthorized", additional_headers={"Authorization": "Bearer no"})
        async with client(live, additional_headers={"Authorization": "Bearer secret"}):
            pass
        offered = [PROTOCOL, headers.token_subprotocol("secret")]
        async with client(live, subprotocols=offered) as one:
            assert one.socket.subprotocol == PROTOCOL


async def test_too_many_connections_are_refused(serve):
    async with serve(max_sockets=1) as live, client(live):
        await refused(live, 503, "overloaded")


async def test_a_draining_server_refuses_connections_and_finishes_requests(live):
    stop_in(live, 2)
    async with client(live) as one:
        await one.say(infer())
        await hold_at(live, 2)
        draining = asyncio.create_task(live.state.engine.drain())
        await asyncio.sleep(0)
        await refused(live, 503, "draining")
        live.executor.gate.set()
        *_, last = await one.story()
        assert last.reason is Reason.DRAINING
        await draining


async def test_a_server_that_goes_away_says_so_when_all_is_answered(live):
    stop_in(live, 2)
    async with client(live) as idle, client(live) as one:
        await one.say(infer())
        await hold_at(live, 2)
        live.server.handle_exit(15, None)
        while live.state.engine.state.value != "draining":
            await asyncio.sleep(0.001)
        live.executor.gate.set()
        assert (await one.story())[-1].reason is Reason.DRAINING
        assert await one.closed() == await idle.closed() == CloseCode.GOING_AWAY


async def test_a_crash_fails_the_requests_and_not_the_connection(serve):
    async with serve(FakeExecutor(crash_at={"1/r"})) as live:
        live.executor.on_stage = lambda job, stage: live.executor.crash_at.update(
            {job} if stage == 2 and job.endswith("/doomed") else set()
        )
        async with client(live) as one:
            await one.say(infer("doomed"))
            assert (await one.story("doomed"))[-1].code is ErrorCode.INTERNAL
            while (await live.http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.001)
            await one.say(infer())
            assert (await one.story())[-1].reason is Reason.COMPLETE


class LeavingSocket:
    """A websocket whose client sends some frames and is gone."""

    client_state = WebSocketState.DISCONNECTED
    headers: ClassVar = {}

    def __init__(self, *frames):
        self.messages = [{"type": "websocket.receive", "text": frame} for frame in frames]
        self.may_leave = asyncio.Event()
        self.is_gone = asyncio.Event()

    async def receive(self):
        await asyncio.sleep(0)
        if self.messages:
            return self.messages.pop(0)
        await self.may_leave.wait()
        self.is_gone.set()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send_text(self, text):
        pass


async def test_a_client_that_leaves_while_its_budget_waits_is_no_error(live, monkeypatch, caplog):
    session = Session(Role.CLIENT, text=True)
    ready = Ready("x", (STREET,), live.state.settings.limits)
    session.receive(json.dumps(ready.to_json()))
    session.send(infer())
    session.send(SetBudget("r", 1, Budget(max_exit=1)))
    socket = LeavingSocket(*session.outgoing())
    submit = live.state.engine.submit

    async def submit_once_it_is_gone(*arguments, **named):
        request = await submit(*arguments, **named)
        socket.may_leave.set()
        await socket.is_gone.wait()
        return request

    monkeypatch.setattr(live.state.engine, "submit", submit_once_it_is_gone)
    await WebsocketConnection(live.state, socket).run()
    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_websocket_elsewhere_is_not_found(live):
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(live.stream_url + "s", subprotocols=[PROTOCOL], proxy=None):
            pass
    response = refusal.value.response
    assert response.status_code == 404
    assert json.loads(response.body)["code"] == "not-found"


async def test_asked_for_without_an_upgrade_it_says_that_one_is_needed(live):
    answer = await live.http.get("/v1/stream")
    assert_problem(answer, ErrorCode.UPGRADE_REQUIRED)
    assert answer.headers["upgrade"] == "websocket"
