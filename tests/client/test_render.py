"""Maps and keypoints drawn over their image."""

import numpy as np
from PIL import Image

from anytime_client import render
from client.factories import MAPS, pose_update, street_update

GREY = Image.new("RGB", (30, 20), (100, 100, 100))


def test_an_indexed_mask_holds_class_ids_under_the_models_palette():
    mask = render.indexed_mask(street_update())
    np.testing.assert_array_equal(np.asarray(mask), MAPS[3])
    assert mask.convert("RGB").getpixel((2, 1)) == (128, 64, 128)


def test_an_overlay_blends_each_classes_colour_over_the_image():
    pixels = np.asarray(render.overlay(GREY, street_update()))
    expected = 100 + render.MAP_OPACITY * (np.array([128, 64, 128]) - 100)
    np.testing.assert_allclose(pixels[15, 25], expected, atol=1)
    assert pixels.shape == (20, 30, 3)


def test_a_skeleton_joins_keypoints_of_enough_score():
    drawn = np.asarray(render.overlay(GREY, pose_update(score=0.9)))
    assert tuple(drawn[10, 15]) == render.BONE_COLOR
    unseen = np.asarray(render.overlay(GREY, pose_update(score=0.1)))
    assert tuple(unseen[10, 15]) == (100, 100, 100)


def test_a_contact_sheet_has_room_for_every_exit_and_its_caption():
    one = render.contact_sheet(GREY, [street_update()])
    four = render.contact_sheet(GREY, [street_update()] * 4)
    assert one.width > GREY.width
    assert one.height > GREY.height
    assert four.width > 2 * GREY.width
    assert four.height > 2 * GREY.height
    caption = render.caption(street_update())
    assert caption == "exit 4 of 4: 40 ms, confidence 0.80, 90% settled"
