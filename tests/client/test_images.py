"""Images of every kind as files."""

import io

import numpy as np
import pytest
from PIL import Image

from anytime_client.errors import ImageError
from anytime_client.images import encode_image, open_image, sniff_media_type

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
    assert encode_image(data) == encode_image(path) == encode_image(str(path)) == expected


def test_other_files_become_png_with_the_same_pixels():
    data, kind = encode_image(encoded("BMP"))
    assert kind == sniff_media_type(data) == "image/png"
    np.testing.assert_array_equal(np.asarray(open_image(data)), PIXELS)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[:, :, 0], PIXELS[::-1, ::2]])
def test_arrays_and_pillow_images_lose_nothing(pixels):
    for image in (pixels, Image.fromarray(np.ascontiguousarray(pixels))):
        data, _ = encode_image(image)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_unusual_modes_of_images_are_converted():
    data, kind = encode_image(Image.fromarray(PIXELS).convert("CMYK"))
    assert kind == "image/png"
    assert open_image(data).size == (5, 4)


def test_exif_rotation_is_applied_to_an_opened_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded("JPEG", exif=exif)).size == (4, 5)


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
def test_other_values_than_images_are_refused_before_they_are_sent(image, message):
    with pytest.raises(ImageError, match=message):
        encode_image(image)
