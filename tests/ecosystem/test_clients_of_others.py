"""Clients that we did not write, unchanged, against a real server process.

Each runs in an environment of its own, and is skipped where that is not there.
"""

import io
import json
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from ecosystem.environments import folder, is_complete, python_of
from server.weights import make_weights
from system.processes import real_server

SCRIPTS = Path(__file__).parent / "clients"
SIZE = (60, 80)
MAX_EXIT = 3


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with real_server(make_weights(tmp_path_factory.mktemp("weights"))) as running:
        yield running


@pytest.fixture(scope="module")
def case(url, tmp_path_factory):
    """A folder with an image and what `/v1` says of it."""
    path = tmp_path_factory.mktemp("case")
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "image.png")
    (path / "pixels.bin").write_bytes(pixels.tobytes())

    def predict(model):
        answer = httpx.post(
            f"{url}/v1/models/{model}/predict?max_exit={MAX_EXIT}",
            content=(path / "image.png").read_bytes(),
            headers={"Content-Type": "image/png", "Accept": "application/x-npy"},
            trust_env=False,
            timeout=30,
        )
        return np.load(io.BytesIO(answer.raise_for_status().content), allow_pickle=False)

    expected = {
        "shape": [1, *SIZE, 3],
        "labels": predict("street").ravel().tolist(),
        "keypoints": predict("pose").tolist(),
        "max_exit": MAX_EXIT,
    }
    (path / "expected.json").write_text(json.dumps(expected))
    return path


@pytest.mark.parametrize(
    ("environment", "script"),
    [
        ("tritonclient", "tritonclient_sync.py"),
        ("tritonclient", "tritonclient_aio.py"),
        ("open-inference", "openapi_client.py"),
        ("kserve", "kserve_rest.py"),
    ],
)
def test_a_client_of_others_works_unchanged(environment, script, request):
    if not is_complete(environment):
        pytest.skip(f"{folder() / environment} is not there; `make test-ecosystem` makes it")
    arguments = [request.getfixturevalue("url"), str(request.getfixturevalue("case"))]
    command = [str(python_of(environment)), str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed check_" in done.stdout
