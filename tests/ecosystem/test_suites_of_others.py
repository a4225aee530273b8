"""Test suites that we did not write, against a real server.

Each runs in an environment of its own, and is skipped where that is not there.
"""

import asyncio
import gzip
import json
import shutil
import subprocess
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from anytime_server.api.asyncapi import describe
from anytime_server.app import create_app
from anytime_server.engine.local import LocalEngine
from anytime_server.metrics import Metrics
from anytime_server.serving import Server, uvicorn_config
from anytime_server.settings import Settings
from ecosystem.environments import folder, is_complete, python_of
from protocol.test_protocol_document import EXAMPLES
from server.fakes import FakeExecutor
from server.weights import make_weights
from system.processes import real_server

ASYNCAPI = Path(__file__).parent / "asyncapi-3.0.0.json.gz"
"""The JSON schema of AsyncAPI documents, from npm's @asyncapi/specs 6.11.1 (Apache-2.0)."""

PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
COMPRESSION = ("12.*", "13.*")
"""Cases of permessage-deflate, which is never negotiated: maps are compressed already."""


def program(environment, name):
    """A program of an environment; skips the test without it."""
    if not is_complete(environment):
        pytest.skip(f"{folder() / environment} is not there; `make test-suites` makes it")
    return str(python_of(environment).with_name(name))


async def run(*command, seconds):
    """What a program prints, and its exit status."""

    def wait():
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={"NO_PROXY": "*"},
        )

    done = await asyncio.to_thread(wait)
    return done.stdout + done.stderr, done.returncode


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with real_server(make_weights(tmp_path_factory.mktemp("weights"))) as running:
        yield running


@pytest.mark.timeout(500)
async def test_schemathesis_finds_no_answer_that_openapi_does_not_describe(url, tmp_path):
    output, status = await run(
        program("schemathesis", "st"),
        *("--config-file", str(Path(__file__).parent / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", "--report-dir", str(tmp_path), "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"),
        seconds=480,
    )
    assert status == 0, output
    assert (await asyncio.to_thread(httpx.get, f"{url}/readyz", trust_env=False)).status_code == 200


def test_the_websocket_is_described_as_asyncapi_wants_it_and_as_the_examples_are(tmp_path):
    python = program("schemathesis", "python")
    document = describe()
    kinds = document["components"]["messages"]
    checks = [[json.loads(gzip.decompress(ASYNCAPI.read_bytes())), [document]]]
    for label, text in EXAMPLES:
        if label.startswith(("json client ", "json server ")):
            checks.append([kinds[label.split()[2]]["payload"], [json.loads(text)]])
    assert len(checks) > 12
    command = [python, str(Path(__file__).parent / "json_schema.py")]
    done = subprocess.run(
        command, input=json.dumps(checks), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_metrics_are_as_promtool_wants_them(url):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    command, text = [promtool, "check", "metrics"], httpx.get(f"{url}/metrics", trust_env=False)
    done = subprocess.run(command, input=text.content, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def echo(websocket: WebSocket):
    """Sends back what comes, as the Autobahn cases want it."""
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                await websocket.send_bytes(message["bytes"])
            else:
                await websocket.send_text(message["text"])
    except (WebSocketDisconnect, RuntimeError):
        return


async def bare_echo(scope, receive, send):
    """The same without a framework."""
    await echo(WebSocket(scope, receive, send))


@asynccontextmanager
async def serving(server):
    server.capture_signals = nullcontext
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def our_server():
    """Our server, with an echo in place of the protocol."""
    settings = Settings(port=0, log_level="critical")
    metrics = Metrics()
    app = create_app(settings, LocalEngine([FakeExecutor()], metrics, settings), metrics)
    app.router.routes.insert(0, WebSocketRoute("/", echo))
    return Server(uvicorn_config(app, settings), app.state.api)


def bare_server():
    config = uvicorn.Config(
        bare_echo,
        port=0,
        log_config=None,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=2**26,
        ws_per_message_deflate=False,
    )
    return uvicorn.Server(config)


async def verdicts(server, results: Path):
    """The verdict of each case, for its messages and for its close."""
    async with serving(server) as address:
        excluded = [part for case in COMPRESSION for part in ("--exclude", case)]
        command = [program("kosoku", "kosoku"), *excluded, "--outdir", str(results), address]
        output, _ = await run(*command, seconds=240)
    index = results / "index.json"
    assert index.exists(), output
    (agent,) = json.loads(index.read_text()).values()
    return {case: (found["behavior"], found["behaviorClose"]) for case, found in agent.items()}


@pytest.mark.timeout(500)
async def test_every_autobahn_case_that_bare_uvicorn_passes_is_passed(tmp_path):
    bare = await verdicts(bare_server(), tmp_path / "bare")
    ours = await verdicts(our_server(), tmp_path / "ours")
    passed = {case for case, verdict in bare.items() if set(verdict) <= PASSED}
    assert len(passed) > 200
    assert {case: ours[case] for case in passed if not set(ours[case]) <= PASSED} == {}
