"""Errors, exit codes and options that all subcommands share."""

import subprocess
import sys

import pytest

from client.factories import failed
from client.fakes import fake_http_server, fake_server, free_port

WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        blocked = {"torch", "anytime_model", "anytime_server", "fastapi", "cv2", "av"}
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
sys.argv = ["anytime", "--version"]
import runpy
runpy.run_module("anytime_client.cli", run_name="__main__")
"""


def test_the_program_runs_as_a_module_with_torch_and_server_blocked():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.split()[0], done.stderr, done.returncode) == ("anytime", "", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "no-such-file"], 2, "no-such-file: No such file"),
        (["predict", "IMAGE", "--deadline-ms", "-5"], 2, "deadline_ms"),
        (["predict", "IMAGE", "--out", "map.tiff"], 2, ".tiff"),
        (["predict", "IMAGE", "--model", "nope"], 1, "unknown-model"),
        (["predict", "IMAGE", "--unknown"], 2, "--unknown"),
        (["predict", "IMAGE", "--max-exit", "9"], 2, "found 9, street has 4 exits"),
        (["stream", "IMAGE", "--max-exit", "5"], 2, "found 5, street has 4 exits"),
        (["predict", "IMAGE", "--form", "npy", "--out", "x.png"], 2, "expected .npy"),
        (["predict", "IMAGE", "--out", "no/such/folder/x.png"], 2, "there is no folder no/such"),
        (["predict", "IMAGE", "IMAGE", "--out", "-"], 2, "of several images a folder"),
        (["predict", "FOLDER"], 2, "found no images in this folder"),
        (["budget", "--set", "{", "--clear"], 2, "exclude"),
        (["budget", "--set", "{"], 2, "--set: no JSON object"),
        (["budget", "--set", '{"max_exit": 0}'], 2, "budget.max_exit: found the number 0"),
        (["watch", "nowhere"], 2, "nowhere: found nothing, expected a folder"),
    ],
)
def test_errors_are_one_line_and_a_documented_code(anytime, url, image, arguments, code, words):
    (image.parent / "empty").mkdir()
    files = {"IMAGE": image, "FOLDER": image.parent / "empty"}
    done = anytime(url, *(files.get(word, word) for word in arguments))
    assert (done.returncode, words in done.stderr.decode()) == (code, True), done.stderr
    assert b"Traceback" not in done.stderr


def test_a_refused_request_is_1(anytime, image):
    with fake_server(lambda event: [failed(event.id)]) as server:
        done = anytime(server.url, "predict", image)
    message = f"anytime: {image}: overloaded: no room\n"
    assert (done.returncode, done.stderr.decode()) == (1, message)


def test_no_server_is_3(anytime):
    url = f"http://127.0.0.1:{free_port()}"
    done = anytime(url, "models")
    refused = f"anytime: {url}: no connection (Connection refused); "
    assert (done.returncode, done.stderr.decode().startswith(refused)) == (3, True), done.stderr


def test_a_host_without_an_address_is_named_with_the_resolvers_reason(anytime):
    done = anytime("http://no-such-host.invalid:8000", "models")
    assert done.returncode == 3
    assert b"no-such-host.invalid" in done.stderr
    assert b"Unknown error" not in done.stderr


def test_another_program_at_the_url_is_3(anytime):
    with fake_http_server() as server:
        done = anytime(f"{server.url}/elsewhere", "models")
    assert (done.returncode, b"this is no anytime server" in done.stderr) == (3, True)
