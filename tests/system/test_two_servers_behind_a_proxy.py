"""Two real servers behind a real nginx and a real Envoy, as they are configured in deploy/."""

import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from anytime_client import Client
from client.fakes import free_port
from ecosystem.environments import python_of
from model.factories import save_tiny
from system.long_requests import PREDICT, STREET, end_of_cancelled, long_request, until_exit_1
from system.processes import real_server, wait_for_http

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
ENVOY = shutil.which("envoy") or shutil.which("envoy", path=python_of("envoy").parent)
WAITS = {"max_exit": 1, "schedule": [{"at_ms": 12_000, "max_exit": 4}]}
"""A budget that leaves a request at exit 1, for less than the time that Envoy allows it."""

DEPLOY = Path(__file__).parents[2] / "deploy"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The URLs of two servers."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    with real_server(folder) as first, real_server(folder) as second:
        yield first, second


def nginx_command(servers, port, folder):
    """Starts nginx before two servers."""
    one, two = (url.removeprefix("http://") for url in servers)
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    text = text.replace("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{port};")
    text = re.sub(r"# server 127\.0\.0\.1:8001;", f"server {two};", text)
    text = text.replace("server 127.0.0.1:8000;", f"server {one};")
    file = folder / "nginx.conf"
    file.write_text(text, "utf-8")
    return [
        *(NGINX, "-c", file, "-p", folder, "-e", "stderr"),
        *("-g", f"daemon off; pid {folder}/pid; error_log stderr;"),
    ]


def envoy_command(servers, port, folder):
    """Starts Envoy before two servers."""
    config = yaml.safe_load((DEPLOY / "envoy.yaml").read_text("utf-8"))["static_resources"]
    config["listeners"][0]["address"]["socket_address"]["port_value"] = port
    for cluster in config["clusters"]:
        (group,) = cluster["load_assignment"]["endpoints"]
        addresses = [("127.0.0.1", int(url.rpartition(":")[2])) for url in servers]
        group["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": number}}}}
            for host, number in addresses
        ]
    file = folder / "envoy.json"
    file.write_text(json.dumps({"static_resources": config}), "utf-8")
    return [ENVOY, "-c", file, "--use-dynamic-base-id", "--log-level", "warning"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            nginx_command,
            id="nginx",
            marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
        ),
        pytest.param(
            envoy_command,
            id="envoy",
            marks=pytest.mark.skipif(
                ENVOY is None, reason="Envoy is not installed: make test-suites downloads it"
            ),
        ),
    ],
)
def proxy(request, servers, tmp_path_factory):
    """The URL of a proxy before them."""
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    process = subprocess.Popen(request.param(servers, port, folder))
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_http(f"{url}/readyz", lambda: process.poll() is None)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_a_request_is_found_by_its_id_wherever_it_runs(proxy, servers):
    names = [f"{httpx.URL(proxy).port}-{number}" for number in range(24)]
    with ThreadPoolExecutor(len(names)) as pool:
        running = {name: pool.submit(long_request, proxy, name, WAITS) for name in names}
        for name in names:
            until_exit_1(proxy, name)
        found = [
            sum(httpx.get(f"{url}/v1/requests/{name}").status_code == 200 for name in names)
            for url in servers
        ]
        assert sum(found) == len(names)
        assert all(found)  # each has some
        for name in names[::2]:
            assert httpx.delete(f"{proxy}/v1/requests/{name}").status_code == 204
        for name in names[1::2]:
            change = {"budget": {"max_exit": 2}}
            answer = httpx.patch(f"{proxy}/v1/requests/{name}", json=change)
            assert answer.json()["effect"] == "applied"
        ends = {name: future.result() for name, future in running.items()}
    assert {ends[name]["reason"] for name in names[::2]} == {"cancelled"}
    assert {ends[name]["exit"] for name in names[::2]} == {1}
    assert {ends[name]["exit"] for name in names[1::2]} == {2}


def test_requests_without_an_id_go_to_both(proxy, servers):
    def answered(url):
        text = httpx.get(f"{url}/metrics").text
        return sum(
            float(n) for n in re.findall(r"^anytime_requests_total\{.*\} (\S+)$", text, re.M)
        )

    before = [answered(url) for url in servers]
    with ThreadPoolExecutor(8) as pool:
        statuses = pool.map(
            lambda _: (
                httpx.post(
                    proxy + PREDICT,
                    content=STREET.read_bytes(),
                    headers={"Content-Type": "image/jpeg"},
                ).status_code
            ),
            range(24),
        )
        assert set(statuses) == {200}
    gained = [after - b for after, b in zip(map(answered, servers), before, strict=True)]
    assert sum(gained) == 24
    assert all(gained)


def test_a_websocket_streams_and_cancels_through_it(proxy):
    with Client(proxy) as client:
        with client.stream(STREET) as stream:
            assert [update.exit for update in stream] == [1, 2, 3, 4]
        assert end_of_cancelled(client) == "cancelled"


def test_an_event_stream_comes_through_it_exit_by_exit(proxy):
    names = [f"events-{httpx.URL(proxy).port}-{number}" for number in range(8)]
    for name in names:  # each waits after exit 1 until it is cancelled
        with httpx.stream(
            "POST",
            proxy + PREDICT,
            files={"image": ("street.jpg", STREET.read_bytes(), "image/jpeg")},
            data={"budget": json.dumps(WAITS)},
            headers={"Accept": "text/event-stream", "X-Request-Id": name},
            timeout=20,
        ) as answer:
            events = []
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    last = json.loads(line.removeprefix("data: "))
                if line.startswith("event: "):
                    events.append(line.removeprefix("event: "))
                if events[-1:] == ["update"]:  # it came while the request goes on
                    httpx.delete(f"{proxy}/v1/requests/{name}")
        assert events[-1] == "final"
        assert last["reason"] == "cancelled"
        assert events.count("update") == 1


def test_the_time_that_a_proxy_allows_reaches_the_server_as_a_deadline_where_it_tells(
    proxy, request
):
    answer = httpx.post(
        proxy + PREDICT, content=STREET.read_bytes(), headers={"Content-Type": "image/jpeg"}
    )
    told = {"nginx": None, "envoy": "15000"}[request.node.callspec.id]
    assert answer.headers.get("x-deadline-applied-ms") == told
