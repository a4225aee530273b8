"""The client over both transports, against the real server in a process of its own."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_client import (
    AsyncClient,
    Budget,
    Client,
    Compression,
    ConnectionLostError,
    Encoding,
    OutputOptions,
    Reason,
    RequestError,
    ServerBudget,
    TransportKind,
)
from anytime_protocol.enums import ErrorCode
from client.fakes import free_port
from model.factories import random_pixels, save_tiny
from system.factories import save_ladder, save_slow
from system.processes import real_server, tcp_proxy, wait_for_http

# A server's start takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TOKEN = "a-token-for-tests"
TRANSPORTS = [TransportKind.WEBSOCKET, TransportKind.HTTP]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PROGRAM = [sys.executable, "-m", "anytime_client.cli"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    save_tiny(folder, task="pose", name="pose")
    save_slow(folder)
    save_ladder(folder)
    return folder


@pytest.fixture(scope="module")
def url(weights):
    with real_server(weights, "--token", TOKEN) as address:
        yield address


@pytest.fixture(params=TRANSPORTS)
def client(request, url):
    with Client(url, TOKEN, transport=request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def image():
    out = io.BytesIO()
    Image.fromarray(random_pixels(120, 160)).resize((640, 480)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def large():
    """For the model `slow`, which still computes when the client's next message arrives."""
    out = io.BytesIO()
    Image.fromarray(random_pixels(128, 128)).resize((640, 640)).save(out, "JPEG")
    return out.getvalue()


def test_predict_gives_a_map_of_the_images_size(client, image):
    result = client.predict(image, deadline_ms=20_000)
    assert (result.exit, result.reason, result.map.shape) == (4, Reason.COMPLETE, (480, 640))
    timing = result.timing
    parts = timing.queue_ms + timing.decode_ms + timing.compute_ms + timing.encode_ms
    assert 0 < timing.compute_ms <= parts <= timing.total_ms * 1.05 + 1


def test_exits_come_in_order_and_settle(client, image):
    want = OutputOptions(Encoding.DELTA, confidence=True, active=True)
    updates = list(client.stream(image, want=want))
    assert [update.exit for update in updates] == sorted({update.exit for update in updates})
    assert updates[-1].exit == 4
    shares = [update.confident_share for update in updates]
    assert shares == sorted(shares)
    for before, after in pairwise(updates):
        settled = ~before.active & ~after.active
        np.testing.assert_array_equal(before.map[settled], after.map[settled])


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_encoding_gives_the_same_map(client, image, encoding):
    expected = client.predict(image, want=OutputOptions(Encoding.RAW)).map
    np.testing.assert_array_equal(client.predict(image, want=OutputOptions(encoding)).map, expected)
    *_, last = client.stream(image, want=OutputOptions(encoding, confidence=True))
    np.testing.assert_array_equal(last.map, expected)


def test_compressed_deltas_and_small_maps_work(client, image):
    want = OutputOptions(Encoding.DELTA, Compression.ZLIB, scale=0.25)
    *_, last = client.stream(image, want=want)
    assert last.map.shape == (120, 160)
    np.testing.assert_array_equal(
        last.map, client.predict(image, want=OutputOptions(scale=0.25)).map
    )


def test_a_pose_model_gives_joints_and_heatmaps(client, image):
    update = client.predict(image, model="pose", want=OutputOptions(heatmaps=True)).best
    assert update.keypoints.shape == (5, 3)
    assert update.heatmaps.shape[0] == 5


def test_exits_that_do_not_pay_are_passed_over_and_maps_have_the_images_size(client, image):
    with client.stream(image, model="ladder") as stream:
        updates = list(stream)
    exits = [update.exit for update in updates]
    assert exits == sorted({*exits} - {3, 4})
    assert {update.side for update in updates} <= {64, 128}
    assert all(update.map.shape == (480, 640) for update in updates)
    assert (stream.result.exit, stream.result.reason) == (8, Reason.COMPLETE)
    np.testing.assert_array_equal(stream.result.map, client.predict(image, model="ladder").map)


def test_a_photo_of_many_megapixels_is_sent_as_it_is(client):
    out = io.BytesIO()
    Image.fromarray(random_pixels(30, 40)).resize((4000, 3000)).save(out, "JPEG")
    result = client.predict(out.getvalue(), model="ladder", want=OutputOptions(scale=0.25))
    assert (result.exit, result.map.shape) == (8, (750, 1000))
    assert (result.best.width, result.best.height) == (4000, 3000)


def test_a_photo_beyond_the_bound_on_decoding_is_refused_with_the_cure(client):
    out = io.BytesIO()
    Image.new("RGB", (8000, 6000)).save(out, "PNG")
    with pytest.raises(RequestError, match=r"8000x6000 .* 26214400 .*: make it smaller") as caught:
        client.predict(out.getvalue(), model="ladder")
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS


def test_limits_are_obeyed(client, image):
    assert client.predict(image, max_exit=2).reason is Reason.BUDGET
    satisfied = client.predict(image, budget=Budget(min_confidence=0.0))
    assert (satisfied.exit, satisfied.reason) == (1, Reason.SATISFIED)


def test_a_budget_is_changed_while_the_server_computes(client, large):
    with client.stream(large, model="slow") as stream:
        for update in stream:
            if update.exit == 1:
                stream.set_budget(Budget(max_exit=1))
    assert stream.result.exit < 4
    assert stream.result.reason is Reason.BUDGET


def test_cancel_stops_the_server(client, large):
    stream = client.stream(large, model="slow")
    for _ in stream:
        stream.cancel()
    assert stream.result.reason is Reason.CANCELLED
    assert stream.result.exit < 4


def test_a_satisfied_caller_stops_the_server(client, large):
    stream = client.stream(large, model="slow", satisfied=lambda update: True)
    assert [update.exit for update in stream] == [1]
    assert stream.result.reason is Reason.SATISFIED


def test_leaving_the_loop_frees_the_server(client, large, image):
    for _ in client.stream(large, model="slow"):
        break
    assert client.predict(image).exit == 4
    assert client.server_budget().in_flight == 0


def test_refusals_say_why(client):
    with pytest.raises(RequestError) as caught:
        client.predict(b"\xff\xd8\xff no image")
    assert caught.value.code is ErrorCode.BAD_IMAGE


def test_a_wrong_token_is_refused(url, image):
    for kind in TRANSPORTS:
        with Client(url, "wrong", transport=kind) as client, pytest.raises(RequestError) as caught:
            client.predict(image)
        assert caught.value.code is ErrorCode.UNAUTHORIZED


def test_the_operators_budget_is_set_and_read(url, image):
    with Client(url, TOKEN) as client:
        client.set_server_budget(Budget(max_exit=2))
        try:
            assert client.server_budget().budget == ServerBudget(max_exit=2)
            assert client.predict(image).exit == 2
        finally:
            client.set_server_budget(Budget())
        assert client.predict(image).exit == 4


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_the_asynchronous_client_does_the_same(url, image, kind):
    async with AsyncClient(url, TOKEN, transport=kind) as client:
        results = await asyncio.gather(*(client.predict(image) for _ in range(3)))
        assert [result.exit for result in results] == [4, 4, 4]
        async with client.stream(image) as stream:
            exits = [update.exit async for update in stream]
        assert exits[-1] == 4
        assert (await client.server_budget()).budget == ServerBudget()


def test_a_cut_connection_fails_what_runs_and_is_made_anew(url, image, large):
    with tcp_proxy(url) as proxy, Client(proxy.url, TOKEN, reconnect_s=30) as client:
        assert client.predict(image).exit == 4
        stream = client.stream(large, model="slow")
        proxy.cut()
        with pytest.raises(ConnectionLostError, match="broke off") as caught:
            list(stream)
        assert caught.value.code == 1006
        proxy.restore()
        assert client.predict(image).exit == 4


def test_a_server_that_dies_is_an_error(weights, large):
    processes = []
    with real_server(weights, process_to=processes) as address, Client(address) as client:
        stream = client.stream(large, model="slow")
        processes[0].kill()
        with pytest.raises(ConnectionLostError) as caught:
            list(stream)
        assert caught.value.code == 1006


def test_the_command_line_works_against_the_server(url, image):
    environment = os.environ | {"ANYTIME_URL": url, "ANYTIME_TOKEN": TOKEN}
    command = [*PROGRAM, "stream", "-", "--json"]
    done = subprocess.run(
        command, input=image, capture_output=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["reason"] == "complete"


def test_the_operators_whole_budget_is_set_and_read_on_the_command_line(url):
    environment = os.environ | {"ANYTIME_URL": url, "ANYTIME_TOKEN": TOKEN}
    budget = {
        "max_exit": 2,
        "load_caps": [{"above_s": 9.0, "below_s": 1.0, "max_exit": 1}],
        "floors": {"0": 2},
        "schedule": [{"max_exit": 4, "at_ms": 3_600_000.0}],
    }
    command = [*PROGRAM, "budget", "--json"]
    options = {"capture_output": True, "timeout": 60, "env": environment}
    try:
        for arguments in (["--set", json.dumps(budget)], []):
            done = subprocess.run([*command, *arguments], check=False, **options)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["budget"] == budget
    finally:
        subprocess.run([*command, "--clear"], check=True, **options)


def test_the_demonstration_starts_a_server_and_leaves_it_running(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    sample = Path(__file__).parents[2] / "client" / "web" / "samples" / "street-1.jpg"
    weights = tmp_path / "weights"
    weights.mkdir()
    save_tiny(weights)
    command = [*PROGRAM, "--server", address, "demo", "--weights", weights, "--out", tmp_path]
    command += ["--patience-s", "150"]
    quick = os.environ | {"ANYTIME_PROFILE_SIZE": "64x96"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env=quick
    )
    assert done.returncode == 0, done.stderr
    process = int(re.search(r"kill (\d+)", done.stdout)[1])
    try:
        assert f"page:   {address}/" in done.stdout
        with Image.open(tmp_path / "exits.png") as sheet, Image.open(sample) as image:
            assert sheet.width > image.width
        with Client(address) as client:
            assert client.predict(sample).exit == 4
    finally:
        os.kill(process, signal.SIGTERM)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("kind", TRANSPORTS)
def test_both_transports_get_through_nginx_as_documented(url, image, tmp_path, kind):
    port = free_port()
    shipped = (Path(__file__).parents[2] / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    changed = shipped.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    (tmp_path / "nginx.conf").write_text(changed.replace("127.0.0.1:8000", url.split("//")[1]))
    settings = f"daemon off; pid {tmp_path}/nginx.pid; error_log stderr;"
    command = [NGINX, "-c", tmp_path / "nginx.conf", "-e", "stderr", "-g", settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as nginx:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_http(f"{address}/readyz")
            with Client(address, TOKEN, transport=kind) as client, client.stream(image) as stream:
                assert [update.exit for update in stream][-1] == 4
        finally:
            nginx.terminate()
