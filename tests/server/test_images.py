"""Images from strangers: formats, sizes, kinds of pixels, and damage."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from anytime_protocol.enums import ErrorCode
from anytime_server import images
from anytime_server.errors import ImageRejectedError
from anytime_server.image_headers import ImageHeader
from anytime_server.images import (
    DECODED,
    check_media_type,
    configure_pillow,
    is_quick,
    probe,
)
from server import hostile_files
from server.factories import image_file

MOST = 2**22


@pytest.fixture(autouse=True)
def _own_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with warnings.catch_warnings():
        configure_pillow()
        yield


def decode(data, most=MOST, side=None):
    return images.decode(data, probe(data, most), side)


def save(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


LOADED_BY_A_FIRST_IMAGE = """
import sys
from anytime_server import images
if sys.argv[1] == "warm":
    images.warm_up()
before = set(sys.modules)
for file in sys.stdin.read().split():
    data = bytes.fromhex(file)
    images.decode(data, images.probe(data, 1000))
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(("how", "expected"), [("warm", False), ("cold", True)])
def test_after_a_warm_up_the_first_image_has_nothing_to_load(how, expected):
    files = " ".join(image_file(kind, (8, 8)).hex() for kind in ("JPEG", "PNG", "WEBP"))
    command = [sys.executable, "-c", LOADED_BY_A_FIRST_IMAGE, how]
    done = subprocess.run(command, input=files, capture_output=True, text=True, check=True)
    assert bool(done.stdout.split()) is expected


@pytest.mark.parametrize(
    ("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")]
)
def test_a_header_tells_type_and_size(kind, media_type):
    header = probe(image_file(kind, (30, 50)), MOST)
    assert (header.media_type, header.height, header.width) == (media_type, 30, 50)
    assert header.pixels == 1500
    assert is_quick(image_file(kind, (30, 50)), header)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_come_out_as_rgb(kind):
    image = Image.new("RGB", (40, 20), (200, 100, 50))
    found = decode(save(image, kind), MOST)
    assert found.image.shape == (20, 40, 3)
    assert found.image.dtype == np.uint8
    assert np.abs(found.image.astype(int) - (200, 100, 50)).max() <= 6
    assert found.elapsed_s > 0
    assert found.cpu_s > 0


def pillows(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}], ids=str)
def test_a_plain_jpeg_has_the_pixels_that_pillow_finds(subsampling, options):
    noise = np.random.default_rng(1).integers(0, 256, (45, 83, 3), dtype=np.uint8)
    file = save(Image.fromarray(noise), "JPEG", subsampling=subsampling, **options)
    found = decode(file, MOST).image
    assert np.array_equal(found, pillows(file))
    assert found.flags.writeable  # Pillow's own array would not be


@pytest.mark.parametrize("kind", ["L", "CMYK"])
def test_other_jpegs_have_the_pixels_that_pillow_finds(kind):
    file = image_file("JPEG", (45, 83), kind)
    assert np.array_equal(decode(file, MOST).image, pillows(file))


def test_a_jpeg_that_is_damaged_but_readable_is_read_as_pillow_reads_it():
    file = image_file("JPEG", (45, 83))
    middle = len(file) // 2
    damaged = file[:middle] + b"\x00" * 8 + file[middle + 8 :]
    assert np.array_equal(decode(damaged, MOST).image, pillows(damaged))


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("L", (4, 3), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (4, 3), 1), "PNG", (255, 255, 255)),
        (Image.new("LA", (4, 3), (60, 10)), "PNG", (60, 60, 60)),
        (Image.new("RGBA", (4, 3), (10, 20, 30, 0)), "PNG", (10, 20, 30)),
        (Image.new("RGB", (4, 3), (10, 200, 30)).quantize(4), "PNG", (10, 200, 30)),
        (Image.fromarray(np.full((3, 4), 0x1234, np.uint16)), "PNG", (0x12,) * 3),
        (Image.new("CMYK", (4, 3), (0, 0, 0, 0)), "JPEG", (255, 255, 255)),
        (Image.new("L", (4, 3), 90), "JPEG", (90, 90, 90)),
    ],
)
def test_every_kind_of_pixel_becomes_8_bit_rgb(image, kind, expected):
    found = decode(save(image, kind), MOST).image
    assert found.shape == (3, 4, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_16_bit_rgb_keeps_its_high_bytes():
    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    row = b"\0" + struct.pack(">3H", 0x1122, 0x8899, 0xFFEE) * 2
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    file += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert decode(file, MOST).image.tolist() == [[[0x11, 0x88, 0xFF]] * 2]


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 0, 250))]
    file = save(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    red, _, blue = decode(file, MOST).image[4, 4]
    assert red > 200
    assert blue < 50


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotation_is_honoured(orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(save(image, "JPEG", exif=exif, quality=95), MOST).image
    turned = orientation >= 5
    assert found.shape == ((32, 16, 3) if turned else (16, 32, 3))
    corners = [(0, 0), (0, -1), (-1, -1), (-1, 0)]
    bright = {1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 1, 7: 2, 8: 3}[orientation]
    assert [bool(found[corner].mean() > 128) for corner in corners].index(True) == bright


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_image_is_bad(kind, kept):
    file = image_file(kind, (60, 80))
    with pytest.raises(ImageRejectedError) as caught:
        decode(file[: int(len(file) * kept)], MOST)
    assert caught.value.code is ErrorCode.BAD_IMAGE


@pytest.mark.parametrize(
    "file",
    [b"", b"not an image", b"GIF89a" + bytes(100), b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"],
)
def test_what_is_no_image_is_bad(file):
    for read in (probe, decode):
        with pytest.raises(ImageRejectedError) as caught:
            read(file, MOST)
        assert caught.value.code is ErrorCode.BAD_IMAGE


def test_too_many_pixels_are_told_with_both_numbers():
    with pytest.raises(ImageRejectedError, match="1500 px, at most 1499") as caught:
        probe(image_file("PNG", (30, 50)), 1499)
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS
    with pytest.raises(ImageRejectedError):
        decode(image_file("PNG", (30, 50)), 1499)


def test_media_types_are_read_without_parameters_and_case():
    assert check_media_type("Image/JPEG; charset=x") == "image/jpeg"
    for wrong in ("image/gif", "", "text/html", "image/jpegg", "image/" + "x" * 1000):
        with pytest.raises(ImageRejectedError) as caught:
            check_media_type(wrong)
        assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
        assert len(str(caught.value)) < 300


def outcome(file):
    """What becomes of a file: "an image", or the code of the error."""
    try:
        image = decode(file, MOST).image
    except ImageRejectedError as error:
        return error.code
    return "an image" if image.ndim == 3 else "something else"


@given(st.binary(max_size=400), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(0, 300))
def test_no_damage_makes_anything_but_an_image_or_an_image_error(noise, kind, place):
    file = bytearray(image_file(kind, (12, 9)))
    file[place : place + len(noise)] = noise
    assert outcome(bytes(file)) in {"an image", ErrorCode.BAD_IMAGE, ErrorCode.TOO_MANY_PIXELS}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("side", [200, 100, 50, 30, 10])
def test_a_large_image_is_reduced_by_a_whole_factor_and_remembers_its_size(kind, side):
    ramp = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[:, None], (3, 80)).reshape(3, 200, 80)
    file = save(Image.fromarray(np.moveaxis(ramp, 0, 2)), kind)
    found = decode(file, MOST, side)
    assert found.size == (200, 80)
    assert min(2 * side, 200) <= found.image.shape[0] < 4 * side
    factor = round(200 / found.image.shape[0])
    assert found.image.shape == (-(-200 // factor), -(-80 // factor), 3)
    expected = np.asarray(Image.fromarray(ramp[0]).resize(found.image.shape[1::-1]))
    assert np.abs(found.image[..., 1].astype(int) - expected).mean() < 4


def test_a_photo_that_lies_on_its_side_is_turned_before_its_size_is_told():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(Image.new("RGB", (400, 200)), "JPEG", exif=exif)
    found = decode(file, MOST, 50)
    assert found.size == (400, 200)
    assert found.image.shape == (100, 50, 3)


@pytest.mark.parametrize(("side", "size"), [(None, (90, 120)), (60, (90, 120)), (20, (30, 40))])
def test_pixels_that_came_decoded_are_only_reduced(side, size):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    header = probe(pixels, 90 * 120)
    assert header == ImageHeader(DECODED, 90, 120)
    assert is_quick(pixels, header)
    decoded = images.decode(pixels, header, side)
    assert decoded.size == (90, 120)
    assert decoded.image.shape == (*size, 3)
    factor = 90 // size[0]
    means = pixels.reshape(size[0], factor, size[1], factor, 3).mean((1, 3))
    assert np.abs(decoded.image - means).max() <= 1


def test_too_many_pixels_that_came_decoded_are_refused():
    with pytest.raises(ImageRejectedError, match="at most 100 are allowed"):
        probe(np.zeros((9, 12, 3), np.uint8), 100)


@pytest.mark.parametrize("size", [(32769, 1), (1, 32769)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_side_that_no_map_can_have_is_refused_by_the_header(kind, size):
    with pytest.raises(ImageRejectedError, match="at most 32768 a side are allowed") as caught:
        probe(image_file(kind, size), MOST)
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS


def test_an_image_for_which_there_is_no_memory_is_too_large(monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError

    file = image_file("PNG", (30, 50))
    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(ImageRejectedError, match="no memory for an image of 50x30 px") as caught:
        decode(file)
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    "file",
    [
        b"GIF89a" + bytes(100),
        hostile_files.png().replace(b"IHDR\0\0\0\x40", b"IHDR\0\0\0\x41"),
        image_file("JPEG").replace(b"\xff\xc4\0\x1f\0", b"\xff\xc4\0\x1f\x77"),
        image_file("WEBP")[:20] + bytes(80),
    ],
    ids=["GIF", "PNG", "JPEG", "WebP"],
)
def test_what_is_said_of_a_bad_image_tells_nothing_of_how_it_is_read(file):
    with pytest.raises(ImageRejectedError, match="expected a whole JPEG, PNG or WebP") as caught:
        decode(file)
    assert caught.value.code is ErrorCode.BAD_IMAGE
    for internal in ("0x", "Error", "object", "PIL", "PngImage", "libjpeg"):
        assert internal not in str(caught.value)


BAD_EXIF = """
import sys
from anytime_server import images
images.configure_pillow()
data = bytes.fromhex(sys.stdin.read())
images.decode(data, images.probe(data, 10**6))
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_about_a_file_is_written_to_standard_error(kind):
    file = save(Image.new("RGB", (40, 20)), kind, exif=b"Exif\0\0" + hostile_files.exif(4000))
    command = [sys.executable, "-c", BAD_EXIF]
    done = subprocess.run(command, input=file.hex(), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tag", ["exif", "xmp"])
def test_images_are_turned_as_pillow_turns_them(kind, orientation, tag):
    noise = np.random.default_rng(1).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((24, 32))
    if tag == "exif":
        exif = Image.Exif()
        exif[0x010F] = "a maker"
        exif[0x0112] = orientation
        file = save(image, kind, exif=exif)
    elif kind == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", f'<a tiff:Orientation="{orientation}"/>')
        file = save(image, kind, pnginfo=text)
    else:
        file = save(image, kind, xmp=f'<a tiff:Orientation="{orientation}"/>'.encode())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    found = decode(file)
    assert np.array_equal(found.image, np.asarray(expected))
    assert found.size == found.image.shape[:2]


def test_what_may_take_long_is_not_quick():
    small = image_file("PNG", (30, 50))
    assert is_quick(small, probe(small, MOST))
    many_px = image_file("PNG", (1, 1))
    assert not is_quick(many_px, ImageHeader("image/png", 1449, 1449))
    assert not is_quick(many_px, ImageHeader("image/jpeg", 480, 640, scans=10))
    assert not is_quick(many_px, ImageHeader("image/png", 480, 640, parts=1000))
    assert not is_quick(bytes(2**20 + 1), ImageHeader("image/png", 480, 640))
