"""The blocking client on real sockets, against a server that tells fixed stories."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from websockets.sync.server import serve

from anytime_client import Budget, Client, OutputOptions, Reason
from anytime_client.errors import (
    AnswerError,
    ConnectError,
    ConnectionLostError,
    MissingArrayError,
    RequestError,
    SilenceError,
)
from anytime_protocol.enums import ErrorCode
from anytime_protocol.messages import Cancel, Infer, SetBudget
from client.client_fakes import (
    MAPS,
    PIXELS,
    HangUp,
    accepted,
    all_exits,
    failed,
    fake_server,
    free_port,
    patient,
    plain_http_server,
)


def test_predict_gives_the_best_map():
    with fake_server() as server, Client(server.url, token="secret") as client:
        result = client.predict(PIXELS, deadline_ms=80, want=OutputOptions())
        np.testing.assert_array_equal(result.map, MAPS[3])
        assert (result.exit, result.reason, result.timing.queue_ms) == (4, Reason.COMPLETE, 1.0)
        asked = server.hear(Infer)
        assert (asked.budget.deadline_ms, asked.want.progress) == (80, False)
        assert server.tokens == ["Bearer secret"]


def test_a_stream_hands_out_every_exit():
    with fake_server() as server, Client(server.url) as client:
        with client.stream(PIXELS) as stream:
            maps = [update.map.copy() for update in stream]
        np.testing.assert_array_equal(maps, MAPS)
        assert stream.result.exit == 4
        assert stream.accepted.predicted_exit == 4


def test_leaving_the_loop_cancels():
    with fake_server(patient) as server, Client(server.url) as client:
        for update in client.stream(PIXELS):
            assert update.exit == 1
            break
        assert server.hear(Cancel).id == "1"


def test_an_error_inside_the_with_cancels():
    with fake_server(patient) as server, Client(server.url) as client:
        with pytest.raises(ZeroDivisionError), client.stream(PIXELS) as stream:
            _ = [1 / (update.exit - 1) for update in stream]
        assert server.hear(Cancel)


def test_a_budget_changes_while_the_server_computes():
    with fake_server(patient) as server, Client(server.url) as client:
        exits = []
        with client.stream(PIXELS, budget=Budget(max_exit=1)) as stream:
            for update in stream:
                exits.append(update.exit)
                if update.exit == 1:
                    stream.set_budget(Budget(max_exit=2))
        assert exits == [1, 2]
        assert stream.result.reason is Reason.BUDGET
        assert [answer.rev for answer in stream.applied] == [1]
        assert server.hear(SetBudget).budget == Budget(max_exit=2)


def test_cancel_ends_the_loop_with_the_result_cancelled():
    with fake_server(patient) as server, Client(server.url) as client:
        stream = client.stream(PIXELS)
        for _ in stream:
            stream.cancel()
        assert stream.result.reason is Reason.CANCELLED


def test_a_satisfied_caller_ends_the_loop():
    with fake_server(patient) as server, Client(server.url) as client:
        stream = client.stream(PIXELS, satisfied=lambda update: update.confidence >= 0.2)
        assert [update.exit for update in stream] == [1]
        assert stream.result.reason is Reason.SATISFIED


def test_a_result_before_the_end_is_an_error():
    with fake_server(patient) as server, Client(server.url) as client:
        stream = client.stream(PIXELS)
        with pytest.raises(RuntimeError, match="not over"):
            _ = stream.result


def test_a_refusal_carries_code_and_time_and_leaves_the_connection():
    with fake_server(lambda event: [failed(event.id)]) as server, Client(server.url) as client:
        with pytest.raises(RequestError) as caught:
            client.predict(PIXELS)
        assert (caught.value.code, caught.value.retry_after_ms) == (ErrorCode.OVERLOADED, 180.0)
        with pytest.raises(RequestError):
            client.predict(PIXELS)
        assert len(server.tokens) == 1


def test_a_lost_connection_fails_the_request_and_the_next_one_connects_anew():
    answers = iter([[HangUp(1012)]])

    with (
        fake_server(lambda event: next(answers, None) or all_exits(event)) as server,
        Client(server.url) as client,
    ):
        with pytest.raises(ConnectionLostError, match="restarts") as caught:
            client.predict(PIXELS)
        assert caught.value.code == 1012
        assert client.predict(PIXELS).exit == 4
        assert len(server.tokens) == 2


def test_a_server_that_comes_back_is_found_again():
    port = free_port()
    with fake_server(port=port) as server, Client(server.url) as client:
        assert client.predict(PIXELS).exit == 4
        url = server.url
    with Client(url, reconnect_s=5.0) as client:
        with fake_server(port=port):
            assert client.predict(PIXELS).exit == 4
        with fake_server(port=port):
            assert client.predict(PIXELS).exit == 4


def test_a_server_that_stays_away_is_an_error_that_names_it():
    with fake_server() as server:
        client = Client(server.url, reconnect_s=0.2)
        client.predict(PIXELS)
        url = server.url
    with client, pytest.raises(ConnectError, match=url):
        client.predict(PIXELS)


def test_nobody_at_the_url_fails_at_once():
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, reconnect_s=60) as client, pytest.raises(ConnectError, match=url):
        client.predict(PIXELS)


def test_silence_is_an_error_and_cancels():
    with fake_server(lambda event: []) as server:
        with (
            Client(server.url, timeout_s=0.2) as client,
            pytest.raises(SilenceError, match=r"0\.2 s"),
        ):
            client.predict(PIXELS)
        assert server.hear(Cancel)


def test_an_array_that_was_not_asked_for_says_how_to_ask():
    with fake_server() as server, Client(server.url) as client:
        update = client.predict(PIXELS).best
        with pytest.raises(MissingArrayError, match=r"OutputOptions\(active=True\)"):
            _ = update.active
        with pytest.raises(MissingArrayError, match=r"use \.map"):
            _ = update.keypoints


def test_no_websocket_on_the_way_means_http():
    with plain_http_server() as url, Client(url) as client:
        with client.stream(PIXELS, budget=Budget(schedule=((5.0, Budget(max_exit=2)),))) as stream:
            maps = [update.map.copy() for update in stream]
        np.testing.assert_array_equal(maps, MAPS[:2])
        assert stream.result.exit == 2


def test_who_wants_a_websocket_gets_no_http():
    with plain_http_server() as url:
        client = Client(url, transport="websocket")
        with client, pytest.raises(AnswerError, match="404"):
            client.predict(PIXELS)


def test_events_that_end_without_a_final_are_a_lost_connection():
    with plain_http_server(whole=False) as url:
        client = Client(url, transport="http")
        with client, pytest.raises(ConnectionLostError, match="without a final"):
            client.predict(PIXELS)


def test_a_first_message_that_is_not_ready_is_no_anytime_server():
    def odd(connection):
        connection.send('{"type": "hello"}')
        connection.recv()

    with serve(odd, "127.0.0.1", 0, subprotocols=["anytime.v1"]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        with (
            Client(url, transport="websocket") as client,
            pytest.raises(AnswerError, match="ready"),
        ):
            client.predict(PIXELS)
        server.shutdown()
        thread.join()


def test_several_threads_share_one_connection():
    with fake_server() as server, Client(server.url) as client, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: client.predict(PIXELS), range(12)))
        assert [result.exit for result in results] == [4] * 12
        assert len(server.tokens) == 1


def test_closing_in_another_thread_ends_a_wait():
    with fake_server(patient) as server, Client(server.url) as client:
        stream = client.stream(PIXELS)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stream.wait)
            client.close()
            with pytest.raises(ConnectionLostError):
                waiting.result(5)
        assert [model.name for model in client.models] == ["street", "pose"]
        assert len(server.tokens) == 2


def test_the_callback_runs_in_the_callers_thread():
    threads = []
    with fake_server() as server, Client(server.url) as client:
        list(client.stream(PIXELS, satisfied=lambda _: threads.append(threading.get_ident())))
    assert set(threads) == {threading.get_ident()}


def test_a_closed_client_leaves_no_thread():
    before = set(threading.enumerate())
    with fake_server() as server, Client(server.url) as client:
        client.predict(PIXELS)
        [own] = [t for t in set(threading.enumerate()) - before if t.name == "anytime-client"]
        client.close()
        assert not own.is_alive()


def test_updates_after_acceptance_alone_are_waited_for():
    with fake_server(lambda event: [accepted(event.id)]) as server:
        client = Client(server.url, timeout_s=0.2)
        with client, pytest.raises(SilenceError):
            list(client.stream(PIXELS))
