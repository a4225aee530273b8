"""The program `anytime` against a server that tells fixed stories."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_client import cli
from client.client_fakes import MAPS, failed, fake_server, free_port, plain_http_server

PROGRAM = Path(sys.executable).with_name("anytime")


@pytest.fixture(scope="module")
def url():
    with fake_server() as server:
        yield server.url


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path)
    return path


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def anytime(monkeypatch, capsysbinary):
    """Runs the program in this process, which saves its start; a pipe test runs it for real."""

    def run(url, *arguments):
        monkeypatch.setattr(sys, "argv", ["anytime", "--server", url, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsysbinary.readouterr()
        return Done(left.value.code or 0, captured.out, captured.err)

    return run


def test_predict_writes_what_the_files_name_says(anytime, url, image, tmp_path):
    done = anytime(url, "predict", image, "--out", tmp_path / "map.npy", "--json")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), MAPS[3])
    assert json.loads(done.stdout)["reason"] == "complete"


def test_predict_works_in_a_pipe(url, image):
    command = [PROGRAM, "--server", url, "predict", "-", "--out", "-"]
    done = subprocess.run(
        command, input=image.read_bytes(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(done.stdout))), MAPS[3])


def test_predict_prints_the_map_as_json(anytime, url, image):
    answer = json.loads(anytime(url, "predict", image, "--json").stdout)
    assert [segment["class"] for segment in answer["segments"]] == [0, 3]


def test_stream_shows_every_exit_and_saves_them(anytime, url, image, tmp_path):
    out = tmp_path / "maps"
    done = anytime(url, "stream", image, "--out", out, "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(out.iterdir())] == [
        f"street-exit{number}.png" for number in range(1, 5)
    ]
    assert "4/4" in done.stderr.decode()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6


def test_stream_prints_one_line_of_json_an_exit(anytime, url, image):
    lines = [
        json.loads(line) for line in anytime(url, "stream", image, "--json").stdout.splitlines()
    ]
    assert [(line["type"], line["exit"]) for line in lines] == [
        ("update", 1),
        ("update", 2),
        ("update", 3),
        ("update", 4),
        ("final", 4),
    ]


def test_watch_takes_every_image_of_a_folder_once(anytime, url, image, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    done = anytime(url, "watch", image.parent, "--once", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [
        "street.png",
        "torn.png",
    ]


def test_watch_passes_over_what_is_no_image_and_ends_with_1(anytime, url, image):
    image.with_name("a.bmp").write_bytes(b"no image")
    done = anytime(url, "watch", image.parent, "--once", "--json")
    assert (done.returncode, b"a.bmp: found 8 bytes of no known format" in done.stderr) == (1, True)
    assert json.loads(done.stdout)["frame"] == "street.png"


def test_watch_says_that_a_folder_has_no_images(anytime, url, tmp_path):
    done = anytime(url, "watch", tmp_path, "--once")
    assert (done.returncode, b"found no images" in done.stderr) == (0, True)


def test_models_are_listed(anytime, url):
    assert b"street" in anytime(url, "models").stdout
    names = [
        model["name"] for model in json.loads(anytime(url, "models", "--json").stdout)["models"]
    ]
    assert names == ["street", "pose"]


def test_bench_prints_percentiles_and_what_was_served(anytime, url, image):
    done = anytime(url, "bench", image, "-n", 8, "-c", 2, "-d", 1000, "--json")
    figures = json.loads(done.stdout)
    assert figures["exits"] == {"4": 8}
    assert figures["within_deadline"] == 1.0
    assert figures["first_ms"]["p50"] <= figures["total_ms"]["p99"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "no-such-file"], 2, "no-such-file: No such file"),
        (["predict", "IMAGE", "--deadline-ms", "-5"], 2, "deadline_ms"),
        (["predict", "IMAGE", "--out", "map.tiff"], 2, ".tiff"),
        (["predict", "IMAGE", "--model", "nope"], 1, "unknown-model"),
        (["predict", "IMAGE", "--unknown"], 2, "--unknown"),
        (["budget", "--set", "{", "--clear"], 2, "exclude"),
        (["budget", "--set", "{"], 2, "--set: no JSON object"),
        (["watch", "nowhere"], 2, "nowhere: found nothing, expected a folder"),
    ],
)
def test_errors_are_one_line_and_a_documented_code(anytime, url, image, arguments, code, words):
    done = anytime(url, *(image if word == "IMAGE" else word for word in arguments))
    assert (done.returncode, words in done.stderr.decode()) == (code, True), done.stderr
    assert b"Traceback" not in done.stderr


def test_a_refused_request_is_1_and_no_server_is_3(anytime, image):
    with fake_server(lambda event: [failed(event.id)]) as server:
        done = anytime(server.url, "predict", image)
        assert (done.returncode, done.stderr) == (1, b"anytime: overloaded: no room\n")
    port = free_port()
    done = anytime(f"http://127.0.0.1:{port}", "models")
    refused = f"anytime: http://127.0.0.1:{port}: no connection (Connection refused); "
    assert (done.returncode, done.stderr.decode().startswith(refused)) == (3, True), done.stderr


def test_another_program_at_the_url_is_3_and_the_demonstration_leaves_it_alone(anytime, tmp_path):
    with plain_http_server() as url:
        done = anytime(f"{url}/elsewhere", "models")
        assert (done.returncode, b"this is no anytime server" in done.stderr) == (3, True)
        done = anytime(url, "demo", "--out", tmp_path)
        assert (done.returncode, b"another program answers" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_printed(anytime, url):
    assert anytime(url, "--version").stdout.startswith(b"anytime ")


def test_the_demonstration_never_starts_a_server_on_another_machine(anytime, tmp_path):
    done = anytime("http://192.0.2.1:1", "--timeout-s", "1", "demo", "--out", tmp_path)
    assert done.returncode == 2
    assert b"only a local one is started" in done.stderr
