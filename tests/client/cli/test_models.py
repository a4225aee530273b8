"""`anytime models`."""

import json
from dataclasses import replace

from anytime_protocol.model_info import ExitInfo
from client.factories import POSE
from client.fakes import fake_server


def test_models_are_listed(anytime, url):
    printed = anytime(url, "models").stdout
    assert b"street, segmentation\n" in printed
    assert b"Streets, seen from a car.\n" in printed
    assert b"classes: sky, road" in printed
    assert b"joints: ankle, knee" in printed
    models = json.loads(anytime(url, "models", "--json").stdout)["models"]
    assert [model["name"] for model in models] == ["street", "pose", "ladder"]


def test_each_exit_has_its_size_time_quality_and_cost(anytime, url):
    lines = anytime(url, "models").stdout.decode().splitlines()
    title = next(at for at, line in enumerate(lines) if line.startswith("ladder"))
    assert lines[title].strip() == "ladder, segmentation, native-avx512-bf16, bf16"
    cells = [cell for line in lines[title + 3 : title + 7] for cell in line.split()]
    assert cells[:5] == ["1", "240", "9.0", "0.400", "1.00"]
    assert cells[-5:] == ["4", "480", "66.0", "0.600", "6.00"]


def test_a_server_that_knows_no_sizes_is_listed_too(anytime, url):
    lines = anytime(url, "models").stdout.decode().splitlines()
    title = next(at for at, line in enumerate(lines) if line.startswith("street"))
    assert lines[title + 4].split() == ["1", "as", "sent", "1.00"]


def test_promises_are_listed_with_their_models(anytime, url):
    printed = anytime(url, "models").stdout.decode()
    assert "max risk 0.02: 95% confidence, 400 images" in printed


def test_every_number_is_whole_in_40_columns(anytime, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    exits = tuple(ExitInfo(12.34, 0.567, 128, 1000.0 * number) for number in range(1, 9))
    pose = replace(POSE, exits=exits)
    with fake_server() as server:
        server.ready = replace(server.ready, models=(pose,))
        printed = anytime(server.url, "models").stdout.decode()
    assert "8      128    8000.0     0.567  12.34" in printed
    assert max(len(line) for line in printed.splitlines()[1:12]) <= 40
