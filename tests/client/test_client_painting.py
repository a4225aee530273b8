"""Maps and joints as pictures and files."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from anytime_client import painting, terminal
from anytime_client.results import Update, UpdateTimes
from anytime_client.saving import Form, SavingError, describe, form_of, render, write
from anytime_protocol import rle
from anytime_protocol.enums import ArrayName
from client.client_fakes import MAPS, POSE, STREET

GREY = Image.new("RGB", (30, 20), (100, 100, 100))


def street(**arrays):
    found = {ArrayName.MAP: MAPS[3]} | {ArrayName(name): array for name, array in arrays.items()}
    times = UpdateTimes(40.0, 30.0)
    return Update(STREET, 4, 4, 3, 2, 0.8, 0.9, 3.5, times, changed_share=0.5, arrays=found)


def pose(score=0.9):
    joints = np.array([[0.5, 0.5, 0.9], [2.5, 1.5, score]], np.float32)
    return Update(POSE, 2, 2, 3, 2, 0.8, 0.9, 3.5, UpdateTimes(40.0, 30.0), joints=joints)


def test_a_mask_holds_class_ids_under_the_models_palette():
    picture = Image.open(io.BytesIO(render(street(), GREY, Form.MASK)))
    np.testing.assert_array_equal(np.asarray(picture), MAPS[3])
    assert picture.convert("RGB").getpixel((2, 1)) == (128, 64, 128)


def test_an_overlay_blends_each_classes_colour_over_the_image():
    pixels = np.asarray(painting.overlay(GREY, street()))
    expected = 100 + painting.OPACITY * (np.array([128, 64, 128]) - 100)
    np.testing.assert_allclose(pixels[15, 25], expected, atol=1)
    assert pixels.shape == (20, 30, 3)


def test_settled_pixels_are_darker_than_active_ones():
    update = street(active=np.array([[1, 0, 0], [0, 0, 0]], np.uint8))
    pixels = np.asarray(painting.active_view(GREY, update))
    assert pixels[5, 5].tolist() == [100, 100, 100]
    assert pixels[15, 15].max() < 60


def test_a_skeleton_is_drawn_where_its_joints_are_and_only_if_they_are_seen():
    drawn = np.asarray(painting.overlay(GREY, pose()))
    assert tuple(drawn[10, 15]) == painting.BONE
    unseen = np.asarray(painting.overlay(GREY, pose(score=0.1)))
    assert tuple(unseen[10, 15]) == (100, 100, 100)


def test_a_sheet_has_room_for_every_exit():
    one, four = painting.sheet(GREY, [street()]), painting.sheet(GREY, [street()] * 4)
    assert four.width > 2 * GREY.width
    assert four.height > 2 * GREY.height > one.height - 2 * painting.sheet(GREY, [street()]).height
    assert painting.caption(street()) == "exit 4 of 4: 40 ms, confidence 0.80, 90% settled"


def test_json_of_a_map_decodes_to_the_map():
    wire = json.loads(render(street(), GREY, Form.JSON))
    assert rle.decode(json.dumps(wire["segments"]).encode(), (2, 3)) == MAPS[3].tobytes()
    assert wire["changed_share"] == 0.5


def test_json_of_joints_names_them():
    assert describe(pose())["keypoints"][1] == {"name": "knee", "x": 2.5, "y": 1.5, "score": 0.9}


def test_npy_holds_the_map_or_the_joints():
    read = lambda update: np.load(io.BytesIO(render(update, GREY, Form.NPY)))  # noqa: E731
    np.testing.assert_array_equal(read(street()), MAPS[3])
    np.testing.assert_array_equal(read(pose()), pose().keypoints)


def test_joints_have_no_mask():
    with pytest.raises(SavingError, match="overlay, npy or json"):
        render(pose(), GREY, Form.MASK)


@pytest.mark.parametrize(
    ("path", "form"),
    [("a.png", Form.OVERLAY), ("a.NPY", Form.NPY), ("a.json", Form.JSON), ("-", Form.MASK)],
)
def test_a_files_name_says_its_form(path, form):
    assert form_of(path, None) is form
    assert form_of(path, Form.JSON) is Form.JSON


def test_an_unknown_suffix_and_an_impossible_place_are_errors(tmp_path):
    with pytest.raises(SavingError, match=r"\.tiff"):
        form_of("a.tiff", None)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SavingError, match="file"):
        write(str(tmp_path / "file" / "a.png"), b"")


def test_a_picture_in_a_terminal_has_two_pixels_a_character():
    lines = terminal.picture(GREY, width=12).plain.splitlines()
    assert lines == ["\u2580" * 12] * 4
