"""`/v2` of a real server process gives the maps of `/v1`, without any package of others."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from server.api.v2.messages import (
    bytes_element,
    file_input,
    pixels_input,
    read_response,
    request_body,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), dtype=np.uint8)


def png():
    file = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def http(running):
    with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.mark.parametrize("form", ["file", "pixels"])
def test_both_ways_of_asking_give_one_map(http, running, form):
    lines = {"Content-Type": "image/png", "Accept": "application/x-npy"}
    url = f"/v1/models/{running.model}/predict?max_exit=2"
    answer = http.post(url, content=png(), headers=lines).raise_for_status()
    expected = np.load(io.BytesIO(answer.content), allow_pickle=False)

    tensor = file_input() if form == "file" else pixels_input(PIXELS)
    binary = bytes_element(png()) if form == "file" else PIXELS.tobytes()
    wanted = [{"name": "map", "parameters": {"binary_data": True}}]
    body, json_bytes = request_body(
        tensor, binary, outputs=wanted, parameters={"max_exit": 2, "timeout": 50_000_000}
    )
    lines = {"Inference-Header-Content-Length": str(json_bytes)}
    answer = http.post(f"/v2/models/{running.model}/infer", content=body, headers=lines)
    size = answer.raise_for_status().headers["inference-header-content-length"]
    message, outputs = read_response(answer.content, size)
    np.testing.assert_array_equal(outputs["map"], expected[None])
    assert message["parameters"]["exit"] == 2
    assert answer.headers["content-encoding"] == "gzip"
    stats = http.get(f"/v2/models/{running.model}/stats").json()["model_stats"][0]
    assert stats["inference_count"] >= 2
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
