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


def test_times_are_printed_for_people_on_standard_output_and_notes_on_standard_error(
    anytime, url, image, tmp_path
):
    done = anytime(url, "predict", image, "--out", tmp_path / "map.png")
    assert b"exit 4 of 4, complete, confidence 0.80, 44.0 ms = queue 1.0 +" in done.stdout
    assert done.stderr.startswith(b"wrote ")


def test_several_images_and_folders_are_written_to_a_folder(anytime, url, image, tmp_path):
    folder, out = tmp_path / "frames", tmp_path / "maps"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(image.read_bytes())
    done = anytime(url, "predict", image, folder, "--out", out, "--form", "npy", "--json")
    assert done.returncode == 0, done.stderr
    names = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    assert names == [str(image), str(folder / "a.png"), str(folder / "b.png")]
    assert [path.name for path in sorted(out.iterdir())] == ["a.npy", "b.npy", "street.npy"]


def test_of_several_images_one_that_fails_is_named_and_passed_over(anytime, url, image):
    torn = image.with_name("torn.jpg")
    torn.write_bytes(b"no image")
    done = anytime(url, "predict", torn, image, "--json")
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"anytime: {torn}: found 8 bytes of no known format")
    assert json.loads(done.stdout)["image"] == str(image)


def test_a_truncated_image_is_named_when_it_is_to_be_drawn(anytime, url, image, tmp_path):
    torn = image.with_name("torn.png")
    torn.write_bytes(image.read_bytes()[:40])
    done = anytime(url, "predict", torn, "--out", tmp_path / "map.png")
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"anytime: {torn}: found 40 bytes")


def test_the_risk_that_was_taken_is_told(anytime, url, image):
    done = anytime(url, "predict", image, "--max-risk", "0.02", "--json")
    assert json.loads(done.stdout)["risk"] == 0.02
    assert b"confidence 0.80, no masks," in anytime(url, "predict", image, "--max-risk", 0).stdout
