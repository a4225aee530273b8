"""Replicas on a real Ray Serve, seen from its proxy; skipped where there is no Ray.

`make test-ray` makes its environment and runs this.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from anytime_client import Budget, Client, OutputOptions
from ecosystem.ray_cluster import ON_RAY, ray_server, replica_of
from system.long_requests import (
    LONG,
    STREET,
    end_of_cancelled,
    long_request,
    until_exit_1,
)

pytestmark = ON_RAY


@pytest.fixture(scope="module")
def server(tiny_weights):
    """Two replicas."""
    with ray_server(tiny_weights, replicas="2") as running:
        yield running


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
        assert len(set(by.values())) == 2  # not more even: requests that wait are no work
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
