"""Replicas on a real Ray Serve that are killed, added, taken away and replaced.

Apart from `test_ray_serve.py`, as its server would go on meanwhile: `redeploy` finds any Ray of the
machine, and there should be one. `make test-ray` runs both.
"""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from anytime_client import AnytimeError, Client
from ecosystem.ray_cluster import ON_RAY, load_on, ray_server, replica_of, until_there_are
from system.long_requests import LONG, PREDICT, STREET, long_request, until_exit_1
from system.processes import wait_for_http

pytestmark = ON_RAY


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


def test_a_killed_replica_costs_its_own_requests_one_error_each_and_others_nothing(tiny_weights):
    count = 6
    with ray_server(tiny_weights, replicas="2") as server, ThreadPoolExecutor(2 * count) as pool:
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


def test_no_request_is_lost_when_replicas_come_and_go_under_load(tiny_weights):
    with ray_server(tiny_weights, replicas="3") as server:  # Ray has room for twice as many
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


def test_a_replica_is_added_when_answers_come_too_late_for_waiting(tiny_weights):
    def ask(url, over):
        headers = {"Content-Type": "image/jpeg", "X-Deadline-Ms": "40"}
        with httpx.Client(base_url=url, timeout=60) as http:
            while not over.is_set():
                http.post(PREDICT, content=STREET.read_bytes(), headers=headers)

    over = threading.Event()
    with ray_server(tiny_weights, replicas="1-2") as server, ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(ask, server.url, over)
        try:
            until_there_are(server, 2)
        finally:
            over.set()


def test_no_request_is_lost_in_a_rolling_update(tiny_weights):
    with ray_server(tiny_weights, replicas="2") as server, load_on(server.url) as load:
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


def test_the_command_ends_with_its_websockets_answered(tiny_weights):
    with ray_server(tiny_weights, replicas="1") as server, Client(server.url) as client:
        with client.stream(STREET, budget=LONG) as stream:
            for update in stream:
                assert update.exit == 1
                server.process.terminate()
            assert stream.result.reason == "draining"
        assert server.process.wait(60) == 0
