"""Updates as files and as JSON."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from anytime_client.output import (
    OutputError,
    OutputFormat,
    encode_update,
    format_of,
    update_to_json,
    write,
)
from anytime_protocol.arrays import rle
from client.factories import MAPS, pose_update, street_update

GREY = Image.new("RGB", (30, 20), (100, 100, 100))


def test_a_mask_file_is_an_indexed_png():
    image = Image.open(io.BytesIO(encode_update(street_update(), GREY, OutputFormat.MASK)))
    assert (image.format, image.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.asarray(image), MAPS[3])


def test_json_of_a_map_decodes_to_the_map():
    fields = json.loads(encode_update(street_update(), GREY, OutputFormat.JSON))
    assert rle.decode(json.dumps(fields["segments"]).encode(), (2, 3)) == MAPS[3].tobytes()
    assert (fields["changed_share"], fields["elapsed_ms"]) == (0.5, 40.0)


def test_json_of_keypoints_names_them():
    keypoints = update_to_json(pose_update())["keypoints"]
    assert keypoints[1] == {"name": "knee", "x": 2.5, "y": 1.5, "score": 0.9}


def test_npy_holds_the_map_or_the_keypoints():
    read = lambda update: np.load(io.BytesIO(encode_update(update, GREY, OutputFormat.NPY)))  # noqa: E731
    np.testing.assert_array_equal(read(street_update()), MAPS[3])
    np.testing.assert_array_equal(read(pose_update()), pose_update().keypoints)


def test_a_pose_model_has_no_mask():
    with pytest.raises(OutputError, match="overlay, npy or json"):
        encode_update(pose_update(), GREY, OutputFormat.MASK)


def test_a_files_name_stands_for_its_format():
    names = {"a.png": "overlay", "a.NPY": "npy", "a.json": "json", "-": "mask"}
    assert {name: str(format_of(name)) for name in names} == names
    assert {str(each): each.suffix for each in OutputFormat} == {
        "mask": ".png", "overlay": ".png", "npy": ".npy", "json": ".json",
    }  # fmt: skip


def test_an_unknown_suffix_and_an_impossible_folder_are_errors(tmp_path):
    with pytest.raises(OutputError, match=r"\.tiff"):
        format_of("a.tiff")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        write(tmp_path / "file" / "a.png", b"")
