"""Maps and keypoints drawn over their image."""

from dataclasses import replace

import numpy as np
from PIL import Image

from anytime_client import render
from client.factories import LADDER, MAPS, STREET, map_update, pose_update, street_update

WIDE = Image.new("RGB", (2000, 500))
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


def test_a_skeleton_has_its_models_colours():
    red, blue = (255, 0, 0), (0, 0, 255)
    update = pose_update()
    coloured = replace(update, model=replace(update.model, keypoint_colors=(red, blue)))
    drawn = np.asarray(render.overlay(GREY, coloured))
    assert tuple(drawn[10, 15]) == blue
    assert tuple(drawn[5, 5]) == red
    assert tuple(drawn[15, 25]) == blue


def test_a_contact_sheet_has_room_for_every_exit_and_its_caption():
    one = render.contact_sheet(GREY, [street_update()])
    four = render.contact_sheet(GREY, [street_update()] * 4)
    narrow = render.contact_sheet(Image.new("RGB", (60, 400)), [street_update()] * 4)
    assert one.width > GREY.width
    assert one.height > GREY.height
    assert four.width > 2 * GREY.width
    assert four.height > 2 * GREY.height
    for sheet in (one, four, narrow, render.contact_sheet(WIDE, [street_update()] * 3)):
        border = np.array(sheet)
        border[6:-6, 6:-6] = 255  # no caption is cut
        assert (border == 255).all()
    caption = render.caption(street_update())
    assert caption == "exit 4 of 4\n40 ms, confidence 0.80, 90% settled"


def sheet_size_of(image, exits, model=LADDER):
    return render.contact_sheet(image, [map_update(exit_, model) for exit_ in exits]).size


def test_a_contact_sheet_has_a_row_for_each_size_of_the_ladder():
    image = Image.new("RGB", (480, 360))
    width, height = sheet_size_of(image, [1])
    assert sheet_size_of(image, [1, 2, 4]) == (2 * width - 12, 2 * height - 12)
    assert sheet_size_of(image, [1, 3, 4]) == (2 * width - 12, 2 * height - 12)
    assert sheet_size_of(image, [1, 4]) == (width, 2 * height - 12)


def test_a_contact_sheet_of_a_model_without_a_ladder_has_two_exits_in_a_row():
    image = Image.new("RGB", (480, 360))
    width, height = sheet_size_of(image, [1], STREET)
    assert sheet_size_of(image, [1, 3, 4], STREET) == (2 * width - 12, 2 * height - 12)


def test_large_and_small_images_are_drawn_on_a_sheet_at_a_size_that_can_be_read():
    assert sheet_size_of(Image.new("RGB", (4000, 3000)), [1])[0] == 960 + 2 * 12
    width, height = sheet_size_of(Image.new("RGB", (4, 3)), [1])
    assert width >= 240 + 2 * 12
    assert height >= 180 + 2 * 12
