"""The blocking client: the loop over a stream, threads, and how its own thread ends."""

import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from anytime_client import (
    AsyncClient,
    Budget,
    Client,
    ConnectError,
    ConnectionLostError,
    OutputOptions,
    Reason,
)
from anytime_protocol.messages import Cancel, Infer, SetBudget
from client.factories import MAPS, PIXELS
from client.fakes import answer_exit_1_and_wait, fake_server, free_port


def test_predict_gives_the_best_map():
    with fake_server() as server, Client(server.url, token="secret") as client:
        result = client.predict(PIXELS, deadline_ms=80, want=OutputOptions())
        np.testing.assert_array_equal(result.map, MAPS[3])
        assert (result.exit, result.reason, result.timing.queue_ms) == (4, Reason.COMPLETE, 1.0)
        message = server.wait_for(Infer)
        assert (message.budget.deadline_ms, message.want.progress) == (80, False)
        assert server.tokens == ["Bearer secret"]


def test_a_stream_gives_every_exit():
    with fake_server() as server, Client(server.url) as client:
        with client.stream(PIXELS) as stream:
            maps = [update.map.copy() for update in stream]
        np.testing.assert_array_equal(maps, MAPS)
        assert stream.result.exit == 4
        assert stream.accepted.predicted_exit == 4


def test_leaving_the_loop_cancels_the_request():
    with fake_server(answer_exit_1_and_wait) as server, Client(server.url) as client:
        for update in client.stream(PIXELS):
            assert update.exit == 1
            break
        assert server.wait_for(Cancel).id == "1"


def test_an_error_inside_the_with_cancels_the_request():
    with fake_server(answer_exit_1_and_wait) as server, Client(server.url) as client:
        with pytest.raises(ZeroDivisionError), client.stream(PIXELS) as stream:
            _ = [1 / (update.exit - 1) for update in stream]
        assert server.wait_for(Cancel)


def test_a_budget_changes_while_the_server_computes():
    with fake_server(answer_exit_1_and_wait) as server, Client(server.url) as client:
        exits = []
        with client.stream(PIXELS, budget=Budget(max_exit=1)) as stream:
            for update in stream:
                exits.append(update.exit)
                if update.exit == 1:
                    stream.set_budget(Budget(max_exit=2))
        assert exits == [1, 2]
        assert stream.result.reason is Reason.BUDGET
        assert [applied.rev for applied in stream.applied] == [1]
        assert server.wait_for(SetBudget).budget == Budget(max_exit=2)


def test_cancel_ends_the_loop_with_the_result_cancelled():
    with fake_server(answer_exit_1_and_wait) as server, Client(server.url) as client:
        stream = client.stream(PIXELS)
        for _ in stream:
            stream.cancel()
        assert stream.result.reason is Reason.CANCELLED


def test_a_satisfied_caller_ends_the_loop_from_its_own_thread():
    threads = []

    def satisfied(update):
        threads.append(threading.get_ident())
        return update.confidence >= 0.2

    with fake_server(answer_exit_1_and_wait) as server, Client(server.url) as client:
        stream = client.stream(PIXELS, satisfied=satisfied)
        assert [update.exit for update in stream] == [1]
        assert stream.result.reason is Reason.SATISFIED
    assert threads == [threading.get_ident()]


def test_several_threads_share_one_connection():
    with fake_server() as server, Client(server.url) as client, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: client.predict(PIXELS), range(12)))
        assert [result.exit for result in results] == [4] * 12
        assert len(server.tokens) == 1


def test_closing_in_another_thread_ends_a_wait_and_the_next_request_connects_anew():
    with fake_server(answer_exit_1_and_wait) as server, Client(server.url) as client:
        stream = client.stream(PIXELS)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stream.wait)
            client.close()
            with pytest.raises(ConnectionLostError):
                waiting.result(5)
        assert [model.name for model in client.models] == ["street", "pose", "ladder"]
        assert len(server.tokens) == 2


def test_a_server_that_comes_back_is_found_again():
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", reconnect_s=5.0) as client:
        for _ in range(2):
            with fake_server(port=port):
                assert client.predict(PIXELS).exit == 4


def test_a_server_that_stays_away_is_an_error_that_names_it():
    with fake_server() as server:
        url = server.url
        client = Client(url, reconnect_s=0.1)
        client.predict(PIXELS)
    with client, pytest.raises(ConnectError, match=url):
        client.predict(PIXELS)


def test_a_closed_client_leaves_no_thread():
    before = set(threading.enumerate())
    with fake_server() as server, Client(server.url) as client:
        client.predict(PIXELS)
        [own] = [t for t in set(threading.enumerate()) - before if t.name == "anytime-client"]
        client.close()
        assert not own.is_alive()


def test_a_program_that_never_closes_its_client_and_stream_ends():
    code = "import sys; from anytime_client import Client; client = Client(sys.argv[1]); "
    code += "updates = iter(client.stream(sys.argv[2])); next(updates); print('done')"
    image = b"\xff\xd8\xff".decode("latin-1")
    with fake_server(answer_exit_1_and_wait) as server:
        code = code.replace("sys.argv[2]", f"{image!r}.encode('latin-1')")
        done = subprocess.run(
            [sys.executable, "-c", code, server.url],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_every_argument_of_the_asynchronous_client_is_there_and_documented():
    for name in ("__init__", "predict", "stream", "server_budget", "set_server_budget"):
        ours, theirs = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters, name
        assert ours.__doc__ == theirs.__doc__, name
    assert inspect.signature(Client.stream).return_annotation == "Stream"


def test_an_unknown_argument_is_an_error_before_anything_is_sent():
    client = Client("http://127.0.0.1:1")
    for call in (client.predict, client.stream):
        with pytest.raises(TypeError, match="'deadline'"):
            call(PIXELS, deadline=80)
    with pytest.raises(TypeError, match="'satisfied'"):
        client.predict(PIXELS, satisfied=bool)
