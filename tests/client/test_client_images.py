"""Images of every kind as files."""

import io

import numpy as np
import pytest
from PIL import Image

from anytime_client.errors import ImageError
from anytime_client.images import as_file, media_type, open_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


def encoded(form, **options):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP"])
def test_files_that_a_server_takes_are_sent_byte_for_byte(form, tmp_path):
    data = encoded(form)
    path = tmp_path / "image"
    path.write_bytes(data)
    expected = (data, f"image/{form.lower()}")
    assert as_file(data) == as_file(path) == as_file(str(path)) == expected


def test_other_files_become_png_with_the_same_pixels():
    data, kind = as_file(encoded("BMP"))
    assert kind == media_type(data) == "image/png"
    np.testing.assert_array_equal(np.asarray(open_picture(data)), PIXELS)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[:, :, 0], PIXELS[::-1, ::2]])
def test_arrays_and_pictures_lose_nothing(pixels):
    for image in (pixels, Image.fromarray(np.ascontiguousarray(pixels))):
        data, _ = as_file(image)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_unusual_modes_of_pictures_are_converted():
    data, kind = as_file(Image.fromarray(PIXELS).convert("CMYK"))
    assert kind == "image/png"
    assert open_picture(data).size == (5, 4)


def test_rotation_is_honoured_where_a_picture_is_shown():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(encoded("JPEG", exif=exif)).size == (4, 5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no such file", "No such file"),
        (b"", "found nothing, expected an image"),
        (b"GIF89a nonsense", "15 bytes of no known format"),
        (PIXELS.astype(np.float32), "float32"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (17, "found a int"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(image, message):
    with pytest.raises(ImageError, match=message):
        as_file(image)
