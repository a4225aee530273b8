"""The websocket transport: what only a socket shows."""

import threading

import pytest
from websockets.sync.server import serve

from anytime_client import AnswerError, AsyncClient, Budget, Reason
from anytime_protocol.enums import Effect
from anytime_protocol.messages import BudgetApplied, SetBudget
from client.factories import PIXELS, finished
from client.fakes import answer_exit_1_and_wait, fake_server


async def test_a_budget_that_is_answered_after_the_end_leaves_the_connection():
    def answer(event):
        if isinstance(event, SetBudget):
            applied = BudgetApplied(event.id, event.rev, 1, Effect.GONE)
            return [finished(event.id, 1, Reason.SATISFIED), applied]
        return answer_exit_1_and_wait(event)

    with fake_server(answer) as server:
        async with AsyncClient(server.url) as client:
            for _ in range(2):
                async for _ in (stream := client.stream(PIXELS)):
                    await stream.set_budget(Budget(max_exit=1))
                assert stream.result.reason is Reason.SATISFIED
        assert len(server.tokens) == 1


async def test_a_first_message_that_is_not_ready_is_no_anytime_server():
    def send_hello(connection):
        connection.send('{"type": "hello"}')
        connection.recv()

    with serve(send_hello, "127.0.0.1", 0, subprotocols=["anytime.v1"]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        async with AsyncClient(url, transport="websocket") as client:
            with pytest.raises(AnswerError, match="ready"):
                await client.predict(PIXELS)
        server.shutdown()
        thread.join()
