"""`anytime predict`."""

import io
import json
import subprocess
import sys

import numpy as np
from PIL import Image

from client.factories import MAPS


def test_a_file_of_the_format_that_its_name_says_is_written(anytime, url, image, tmp_path):
    done = anytime(url, "predict", image, "--out", tmp_path / "map.npy", "--json")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), MAPS[3])
    assert json.loads(done.stdout)["reason"] == "complete"


def test_it_works_in_a_pipe(url, image):
    command = [sys.executable, "-m", "anytime_client.cli", "--server", url]
    done = subprocess.run(
        [*command, "predict", "-", "--out", "-"],
        input=image.read_bytes(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(done.stdout))), MAPS[3])


def test_the_map_is_printed_as_json(anytime, url, image):
    fields = json.loads(anytime(url, "predict", image, "--json").stdout)
    assert [segment["class"] for segment in fields["segments"]] == [0, 3]


def test_times_are_printed_for_people_on_standard_error(anytime, url, image):
    done = anytime(url, "predict", image)
    assert done.stdout == b""
    assert b"exit 4 of 4, complete, confidence 0.80, 44.0 ms = queue 1.0 +" in done.stderr


def test_the_risk_that_was_taken_is_told(anytime, url, image):
    done = anytime(url, "predict", image, "--max-risk", "0.02", "--json")
    assert json.loads(done.stdout)["risk"] == 0.02
    assert b"confidence 0.80, no masks," in anytime(url, "predict", image, "--max-risk", 0).stderr
