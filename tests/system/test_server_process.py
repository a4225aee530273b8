"""A real process with a real network: every way to ask, to stop, to fail and to end."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from anytime_protocol.arrays.segments import split, unpack
from anytime_protocol.budget import Budget
from anytime_protocol.enums import PROTOCOL, Encoding, ErrorCode, Reason
from anytime_protocol.http.headers import TOKEN_PREFIX, ResultHeader, token_subprotocol
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
    Role,
    SetBudget,
    Update,
)
from anytime_protocol.session import Session
from system.processes import wait_for_http

DOCUMENT = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"


def picture(height=96, width=128, kind="JPEG"):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height)).save(file, kind)
    return file.getvalue()


def ask(server, accept="image/png", query="", content=None, model=None, **headers):
    lines = {"Content-Type": "image/jpeg", "Accept": accept}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{server.url}/v1/models/{model or server.model}/predict{query}"
    return httpx.post(url, content=content or picture(), headers=lines, timeout=60, trust_env=False)


class Client:
    """The protocol's client session on a websocket; a context manager."""

    def __init__(self, server):
        self.opening = connect(
            server.stream, subprotocols=[PROTOCOL], compression=None, max_size=2**28, proxy=None
        )
        self.session = Session(Role.CLIENT)
        self.heard = []

    def __enter__(self):
        self.socket = self.opening.__enter__()
        self.hear()
        return self

    def __exit__(self, *exc):
        self.opening.__exit__(*exc)

    def say(self, *messages):
        for message in messages:
            self.session.send(message)
        for frame in self.session.outgoing():
            self.socket.send(frame)

    def hear(self):
        while not self.heard:
            self.session.receive(self.socket.recv(timeout=60))
            self.heard += self.session.events()
        return self.heard.pop(0)

    def story(self, request_id="r"):
        told = []
        while not told or not isinstance(told[-1], Finished | Failed):
            message = self.hear()
            if getattr(message, "id", None) == request_id:
                told.append(message)
        return told


def num_exits(running):
    """Of the model that is served, by its description."""
    with httpx.Client(base_url=running.url, trust_env=False) as client:
        return len(client.get(f"/v1/models/{running.model}").json()["exits"])


def test_an_image_becomes_a_map_of_its_size(running):
    for size in [(96, 128), (97, 33), (1, 1)]:
        response = ask(running, content=picture(*size))
        assert response.status_code == 200, response.text
        assert Image.open(io.BytesIO(response.content)).size == size[::-1]
        result = ResultHeader.parse(response.headers["anytime-result"])
        assert (result.exit, result.reason) == (num_exits(running), Reason.COMPLETE)


def test_each_exit_can_be_asked_for_and_costs_more_than_the_one_before(running):
    gmacs = []
    for exit_ in range(1, 5):
        result = ResultHeader.parse(
            ask(running, query=f"?max_exit={exit_}").headers["anytime-result"]
        )
        assert result.exit == exit_
        gmacs.append(result.gmacs)
    assert gmacs == sorted(gmacs)


def test_all_forms_show_the_same_map(running):
    png = np.asarray(Image.open(io.BytesIO(ask(running).content)))
    npy = np.load(io.BytesIO(ask(running, "application/x-npy").content))
    assert np.array_equal(png, npy)
    body = ask(running, "application/json").json()
    shares = {s["class"] for s in body["segments"]}
    assert shares == set(np.unique(png).tolist())
    lines = ask(running, "application/x-ndjson", "?encoding=png").text.splitlines()
    assert [json.loads(line)["type"] for line in lines[-2:]] == ["update", "final"]
    mixed = ask(running, "multipart/mixed").content
    replaced = ask(running, "multipart/x-mixed-replace").content
    assert mixed.count(b"\x89PNG") >= 1 <= replaced.count(b"\x89PNG")


def test_events_arrive_as_they_happen(running):
    lines = {"Content-Type": "image/jpeg", "Accept": "text/event-stream"}
    url = f"{running.url}/v1/models/{running.model}/predict?scale=0.25"
    names = []
    with httpx.stream(
        "POST", url, content=picture(384, 512), headers=lines, timeout=60, trust_env=False
    ) as response:
        for line in response.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
    assert names[0] == "accepted"
    assert names[-1] == "final"
    assert "update" in names


def test_a_deadline_is_obeyed_or_named(running):
    response = ask(running, X_Deadline_Ms="60000")
    assert response.headers["x-deadline-applied-ms"] == "60000"
    response = ask(running, X_Deadline_Ms="0.01")
    assert response.status_code in {503, 504}


def test_a_form_of_several_megabytes_is_taken(running):
    noise = np.random.default_rng(1).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 3_000_000
    response = httpx.post(
        f"{running.url}/v1/models/{running.model}/predict",
        files={"image": ("a.png", file.getvalue(), "image/png")},
        data={"budget": '{"max_exit": 1}', "want": '{"scale": 0.25}'},
        timeout=60,
        trust_env=False,
    )
    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).size == (300, 225)


def test_a_pose_has_joints_inside_the_image(running):
    models = httpx.get(f"{running.url}/v1/models", trust_env=False).json()["models"]
    pose = next((m for m in models if m["task"] == "pose"), None)
    if pose is None:
        pytest.skip("no pose model is served")
    body = ask(running, "*/*", model=pose["name"]).json()
    assert len(body["keypoints"]) == len(pose["keypoints"])
    for x, y, score in body["keypoints"]:
        assert 0 <= x <= 128
        assert 0 <= y <= 96
        assert 0 <= score <= 1


def maps_of(client, running, name, encoding):
    """A stream's maps by exit, put together from what each update brings."""
    want = OutputOptions(encoding, confidence=True, active=True)
    client.say(Infer(name, running.model, picture(), want=want))
    told = client.story(name)
    assert isinstance(told[0], Accepted)
    held, maps = {}, {}
    for update in (m for m in told if isinstance(m, Update)):
        pieces = split(update.parts, update.payload)
        for part, piece in zip(update.parts, pieces, strict=True):
            held[part.name] = unpack(part, piece, held.get(part.name))
        assert set(held["active"]) <= {0, 1}
        maps[update.exit] = held["map"]
    return maps


def test_a_stream_sharpens_by_deltas(running):
    with Client(running) as client:
        for attempt in range(5):  # predictions may lead two requests along different paths
            deltas = maps_of(client, running, f"deltas-{attempt}", Encoding.DELTA)
            whole = maps_of(client, running, f"whole-{attempt}", Encoding.RAW)
            if set(deltas) == set(whole):
                break
        assert deltas == whole


def test_cancel_budget_and_ping_are_heard_while_it_computes(running):
    with Client(running) as client:
        big = picture(1500, 1500)
        client.say(Infer("r", running.model, big, want=OutputOptions(scale=0.25)), Ping(7))
        client.say(SetBudget("r", 1, Budget(max_exit=4)))
        heard = []
        while not {Pong, BudgetApplied} <= {type(message) for message in heard}:
            heard.append(client.hear())
        client.say(Cancel("r"))
        client.heard = heard + client.heard
        assert client.story()[-1].reason is Reason.CANCELLED
        client.say(Infer("again", running.model, picture()))
        assert client.story("again")[-1].reason is Reason.COMPLETE


def test_many_clients_at_once_all_get_one_end_each(running):
    ends = []

    def one(number):
        with Client(running) as client:
            for k in range(4):
                name = f"{number}-{k}"
                client.say(Infer(name, running.model, picture(), urgency=k))
            mine = []
            while len(mine) < 4:
                message = client.hear()
                if isinstance(message, Finished | Failed):
                    mine.append(message)
            ends.extend(mine)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 16
    assert {type(end) for end in ends} == {Finished}


def test_bad_input_leaves_the_server_well(running):
    for content in (b"not an image", picture()[:-200], b"\x89PNG\r\n\x1a\n" + bytes(50)):
        assert ask(running, content=content).status_code == 422
    assert ask(running, query="?deadline_ms=NaN").json()["code"] == "bad-budget"
    assert ask(running, model="nobody").status_code == 404
    with Client(running) as client:
        client.say(Infer("r", running.model, b"not an image"))
        assert client.story()[-1].code is ErrorCode.BAD_IMAGE
        client.socket.send("nonsense")
        with suppress(ConnectionClosed):
            for _ in client.socket:
                pass
        assert client.socket.close_code == 4400
    assert ask(running).status_code == 200


def test_health_metrics_and_descriptions_are_there(running):
    with httpx.Client(base_url=running.url, trust_env=False) as client:
        get = client.get
        assert get("/livez").status_code == 200
        assert get("/readyz").json()["state"] == "ready"
        assert "anytime_requests_total" in get("/metrics").text
        assert get("/openapi.json").json()["openapi"]
        assert get("/asyncapi.json").json()["asyncapi"]
        assert get("/v1/budget").json()["budget"] == {}


def test_the_documents_client_works_with_the_real_server(running, tmp_path):
    program = re.search(r"^```python client\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)[1]
    (tmp_path / "client.py").write_text(program)
    (tmp_path / "a.jpg").write_bytes(picture())
    command = [sys.executable, "client.py", running.stream, "a.jpg"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "type=accepted" in done.stdout
    assert f"type=final exit={num_exits(running)}" in done.stdout


# Ends.


def test_sigterm_answers_running_requests_and_exits_with_0(start):
    with start() as server, Client(server) as client:
        wants = {"want": OutputOptions(progress=False, scale=0.25)}
        for k in range(4):
            client.say(Infer(str(k), server.model, picture(1400, 1400), **wants))
        while len([m for m in client.heard if isinstance(m, Accepted)]) < 4:
            client.session.receive(client.socket.recv(timeout=30))
            client.heard += client.session.events()
        server.process.send_signal(signal.SIGTERM)
        ends = []
        while len(ends) < 4:
            message = client.hear()
            if isinstance(message, Finished | Failed):
                ends.append(message)
        assert all(isinstance(end, Finished) and end.exit >= 1 for end in ends)
        assert any(end.reason is Reason.DRAINING for end in ends)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.text()


def test_an_idle_server_ends_at_once_on_ctrl_c(start):
    with start() as server:
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10


def executor_pid(server):
    return int(re.findall(r"executor (\d+) is ready", server.text())[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_killed_executor_is_started_again_and_its_requests_get_an_error(start):
    with start() as server, Client(server) as client:
        os.kill(executor_pid(server), signal.SIGSTOP)
        client.say(Infer("r", server.model, picture(1500, 1500)))
        while not isinstance(client.hear(), Accepted):
            pass
        end = time.monotonic() + 60
        while httpx.get(f"{server.url}/v1/budget", trust_env=False).json()["queued"]:
            assert time.monotonic() < end, "the executor was never told to begin"
            time.sleep(0.01)
        os.kill(executor_pid(server), signal.SIGKILL)
        assert client.story()[-1].code is ErrorCode.INTERNAL
        end = time.monotonic() + 60
        while ask(server).status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        client.say(Infer("again", server.model, picture()))
        assert client.story("again")[-1].reason is Reason.COMPLETE


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_executor_ends_with_a_server_that_is_killed(start):
    with start() as server:
        pid = executor_pid(server)
        server.process.kill()
        server.process.wait(10)
        end = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
            assert time.monotonic() < end, "the executor outlived its server"
            time.sleep(0.05)


@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_token_is_logged_and_strangers_cause_no_errors(start, level):
    secret = "s3cret-0123456789"
    encoded = token_subprotocol(secret).removeprefix(TOKEN_PREFIX)
    with start("--token", secret, "--log-level", level, ready=False) as server:
        bearer = {"Authorization": f"Bearer {secret}"}
        wait_for_http(f"{server.url}/readyz")
        for headers in (bearer, {"Authorization": f"Bearer {secret}x"}):
            httpx.get(f"{server.url}/v1/models", headers=headers, trust_env=False)
        offered = [PROTOCOL, token_subprotocol(secret)]
        for protocols, headers in ((offered, {}), ([PROTOCOL], bearer), ([PROTOCOL], {})):
            opening = {"subprotocols": protocols, "additional_headers": headers, "proxy": None}
            with suppress(InvalidStatus), connect(server.stream, **opening) as stream:
                stream.recv()
                stream.send(b"\xff\xfe", text=True)
                with suppress(ConnectionClosed):
                    stream.recv()
        for nonsense in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", 2**17 * b"x"):
            with suppress(ConnectionError), socket_to(server) as raw:
                raw.sendall(nonsense)
                raw.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        text = server.text()
        assert secret not in text
        assert encoded not in text
        assert " ERROR " not in text
        assert "Traceback" not in text
        if level == "info":
            assert "WebSocket" not in text  # no line for each connection


def socket_to(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_the_log_says_why_a_slower_engine_computes(start, tmp_path):
    with start(environment={"ANYTIME_KERNEL_CACHE": str(tmp_path / "empty")}) as server:
        assert re.search(r"WARNING .*falling back to the torch engine.*not built", server.text())
        assert "is computed by torch-cpu-f32" in server.text()


def test_missing_weights_end_the_server_with_1_and_a_reason(tmp_path):
    command = [sys.executable, "-m", "anytime_server.cli", "serve", "--port", "0"]
    command += ["--weights", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "manifest" in done.stderr
    assert "Traceback" not in done.stderr
