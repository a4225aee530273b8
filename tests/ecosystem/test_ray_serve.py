"""Replicas on a real Ray Serve, seen from its proxy; skipped where there is no Ray.

`make test-ray` makes its environment and runs this.
"""

import os
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from anytime_client import AnytimeError, Budget, Client, OutputOptions
from ecosystem.environments import is_complete
from ecosystem.ray_cluster import load_on, ray_server, until_there_are
from model.factories import save_tiny
from system.long_requests import (
    LONG,
    PREDICT,
    STREET,
    end_of_cancelled,
    long_request,
    until_exit_1,
)
from system.processes import wait_for_http

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not is_complete("ray"), reason="no environment: make test-ray makes it, and runs this"
    ),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def server(weights):
    """Two replicas."""
    with ray_server(weights, replicas="2") as running:
        yield running


def replica_of(answer):
    return answer.headers["anytime-replica"]


def test_a_websocket_takes_budgets_and_cancels_in_the_middle_of_a_request(server):
    with Client(server.url) as client:
        with client.stream(STREET) as stream:
            assert [update.exit for update in stream] == [1, 2, 3, 4]
        with client.stream(STREET, budget=LONG) as stream:
            for update in stream:
                if update.exit == 1:
                    stream.set_budget(Budget(max_exit=3))
            assert stream.result.exit == 3
            assert [answer.effect for answer in stream.applied] == ["applied"]
        assert end_of_cancelled(client) == "cancelled"


def test_a_request_is_found_by_its_id_from_any_replica(server):
    names = [f"frame-{number}" for number in range(16)]
    with ThreadPoolExecutor(len(names)) as pool:
        running = {name: pool.submit(long_request, server.url, name) for name in names}
        for name in names:
            until_exit_1(server.url, name)
        by = {}
        for name in names:
            answers = [httpx.get(f"{server.url}/v1/requests/{name}") for _ in range(8)]
            assert {answer.status_code for answer in answers} == {200}
            (by[name],) = {replica_of(answer) for answer in answers}  # that of its replica
        assert min(Counter(by.values()).values()) >= 4  # those that come together are spread
        for name in names[::2]:
            assert httpx.delete(f"{server.url}/v1/requests/{name}").status_code == 204
        for name in names[1::2]:
            change = {"budget": {"max_exit": 2}}
            answer = httpx.patch(f"{server.url}/v1/requests/{name}", json=change)
            assert answer.json()["effect"] == "applied"
        ends = {name: future.result() for name, future in running.items()}
    assert {ends[name]["reason"] for name in names[::2]} == {"cancelled"}
    assert {ends[name]["exit"] for name in names[1::2]} == {2}


def test_an_unknown_request_is_not_found_anywhere(server):
    answer = httpx.patch(f"{server.url}/v1/requests/nobody", json={"budget": {}})
    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown-request"


def test_the_operators_budget_goes_to_all_replicas(server):
    def effective():
        answers = [httpx.get(f"{server.url}/v1/budget") for _ in range(16)]
        return {(replica_of(a), a.json()["effective"].get("max_exit")) for a in answers}

    answer = httpx.put(f"{server.url}/v1/budget", json={"budget": {"max_exit": 2}})
    assert answer.status_code == 200
    assert {limit for _, limit in effective()} == {2}
    assert len(effective()) == 2
    httpx.put(f"{server.url}/v1/budget", json={"budget": {}})
    assert {limit for _, limit in effective()} == {None}


def test_metrics_are_those_of_all_replicas(server):
    until, named = time.monotonic() + 20, set()
    while len(named) < 2 and time.monotonic() < until:  # one that has just started is not known yet
        text = httpx.get(f"{server.url}/metrics").text
        named = set(re.findall(r'^anytime_requests_in_house\{.*replica="(\w+)"', text, re.M))
    assert len(named) == 2


def test_an_answer_has_one_request_id(server):
    answer = httpx.post(
        f"{server.url}/v1/models/tiny/predict",
        content=STREET.read_bytes(),
        headers={"Content-Type": "image/jpeg", "X-Request-Id": "mine"},
    )
    assert answer.headers.get_list("x-request-id") == ["mine"]


def test_an_answer_may_have_more_bytes_than_grpc_takes_by_default(server):
    pixels = np.zeros((1600, 2048, 3), np.uint8)
    with Client(server.url) as client:
        best = client.predict(pixels, want=OutputOptions(confidence=True)).best
    assert best.map.nbytes + best.confidence_map.nbytes > 4 * 2**20  # in one message


def test_a_client_that_leaves_has_its_request_cancelled(server):
    with pytest.raises(httpx.ReadTimeout):
        long_request(server.url, "leaver", silence_s=2)
    until, status = time.monotonic() + 10, {}
    while "final" not in status and time.monotonic() < until:
        status = httpx.get(f"{server.url}/v1/requests/leaver").json()
    assert status["final"]["reason"] == "cancelled"


def end_of(client, started):
    """How a request of a client ends that waits after exit 1."""
    try:
        with client.stream(STREET, budget=LONG) as stream:
            for update in stream:
                started.append(update.exit)
            return stream.result.reason
    except AnytimeError as error:
        return type(error).__name__


def http_end_of(url, name):
    try:
        return long_request(url, name)["reason"]
    except (httpx.HTTPError, ValueError) as error:
        return type(error).__name__


def test_a_killed_replica_costs_its_own_requests_one_error_each_and_others_nothing(weights):
    count = 6
    with ray_server(weights, replicas="2") as server, ThreadPoolExecutor(2 * count) as pool:
        clients = [Client(server.url) for _ in range(count)]
        started = []
        sockets = [pool.submit(end_of, client, started) for client in clients]
        while len(started) < count:
            time.sleep(0.01)
        names = [f"frame-{number}" for number in range(count)]
        requests = {name: pool.submit(http_end_of, server.url, name) for name in names}
        for name in names:
            until_exit_1(server.url, name)
        by = {name: replica_of(httpx.get(f"{server.url}/v1/requests/{name}")) for name in names}
        assert len(set(by.values())) == 2
        first, _ = server.replica_pids()
        os.kill(first, signal.SIGKILL)
        while not any(request.done() for request in requests.values()):
            time.sleep(0.01)
        time.sleep(1)
        lost = {by[name] for name in names if requests[name].done()}
        assert len(lost) == 1
        for name in names:  # all of its requests have ended, and no other's
            assert requests[name].done() == (by[name] in lost)
            if by[name] in lost:
                assert requests[name].result() == "RemoteProtocolError"
            else:
                httpx.delete(f"{server.url}/v1/requests/{name}")
                assert requests[name].result() == "cancelled"
        broken = [socket for socket in sockets if socket.done()]
        assert 0 < len(broken) < count
        assert {socket.result() for socket in broken} == {"ConnectionLostError"}
        for client in clients:
            client.close()
        wait_for_http(f"{server.url}/readyz")  # Ray starts another
        with Client(server.url) as client:
            assert client.predict(STREET).exit == 4


def test_no_request_is_lost_when_replicas_come_and_go_under_load(weights):
    with ray_server(weights, replicas="3") as server:  # Ray has room for twice as many
        server.redeploy(replicas="1")
        until_there_are(server, 1)
        with load_on(server.url) as load:
            time.sleep(1)
            server.redeploy(replicas="3")
            time.sleep(3)
            assert len(load.replicas) == 4  # the first, and, as this is a new version, three others
            server.redeploy(replicas="1")
            until_there_are(server, 1)
        assert load.lost == []
        assert min(load.answered.values()) > 20


def test_a_replica_is_added_when_answers_come_too_late_for_waiting(weights):
    def ask(url, over):
        headers = {"Content-Type": "image/jpeg", "X-Deadline-Ms": "40"}
        with httpx.Client(base_url=url, timeout=60) as http:
            while not over.is_set():
                http.post(PREDICT, content=STREET.read_bytes(), headers=headers)

    over = threading.Event()
    with ray_server(weights, replicas="1-2") as server, ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(ask, server.url, over)
        try:
            until_there_are(server, 2)
        finally:
            over.set()


def test_no_request_is_lost_in_a_rolling_update(weights):
    with ray_server(weights, replicas="2") as server, load_on(server.url) as load:
        time.sleep(2)
        before = set(server.replica_pids())
        server.redeploy(patience_s=2.0)
        until = time.monotonic() + 120
        while before & set(server.replica_pids()) and time.monotonic() < until:
            time.sleep(0.2)
        assert not before & set(server.replica_pids())
    assert load.lost == []
    assert len(load.replicas) == 4
    assert min(load.answered.values()) > 20


def test_the_command_ends_with_its_websockets_answered(weights):
    with ray_server(weights, replicas="1") as server, Client(server.url) as client:
        with client.stream(STREET, budget=LONG) as stream:
            for update in stream:
                assert update.exit == 1
                server.process.terminate()
            assert stream.result.reason == "draining"
        assert server.process.wait(60) == 0
