"""Two real servers behind a real nginx, with the configuration that is shipped."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from anytime_client import Budget, Client
from client.fakes import free_port
from model.factories import save_tiny
from system.long_requests import PREDICT, STREET, long_request, until_exit_1
from system.processes import real_server, wait_for_http

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The URLs of two servers."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    with real_server(folder) as first, real_server(folder) as second:
        yield first, second


@pytest.fixture(scope="module")
def proxy(servers, tmp_path_factory):
    """The URL of nginx before them."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    one, two = (url.removeprefix("http://") for url in servers)
    text = CONFIG.read_text("utf-8").replace("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{port};")
    text = re.sub(r"# server 127\.0\.0\.1:8001;", f"server {two};", text)
    text = text.replace("server 127.0.0.1:8000;", f"server {one};")
    file = folder / "nginx.conf"
    file.write_text(text, "utf-8")
    process = subprocess.Popen(
        [
            *(NGINX, "-c", file, "-p", folder, "-e", "stderr"),
            *("-g", f"daemon off; pid {folder}/pid; error_log stderr;"),
        ]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_http(f"{url}/readyz", lambda: process.poll() is None)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_a_request_is_found_by_its_id_wherever_it_runs(proxy, servers):
    names = [f"frame-{number}" for number in range(24)]
    with ThreadPoolExecutor(len(names)) as pool:
        running = {name: pool.submit(long_request, proxy, name) for name in names}
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
        waits = Budget(max_exit=1, schedule=((60_000, Budget(max_exit=4)),))
        with client.stream(STREET, budget=waits) as stream:
            for update in stream:
                assert update.exit == 1
                stream.cancel()
            assert stream.result.reason == "cancelled"
