"""What files say about themselves; files that ask for more work than they look like."""

import io
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anytime_server.image_headers import (
    MOST_FILLING,
    MOST_PARTS,
    MOST_SCANS,
    BadFileError,
    plain_file,
    read_header,
)
from server.factories import image_file
from server.hostile_files import (
    EMPTY_SCAN,
    chunk,
    exif,
    jpeg,
    png,
    webp,
    webp_chunk,
    with_filling,
    with_scans,
    with_segments,
)


@pytest.mark.parametrize(
    ("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")]
)
@pytest.mark.parametrize("size", [(1, 1), (30, 50), (1, 3000), (3000, 1)])
def test_type_and_size_are_read_from_the_structure(kind, media_type, size):
    header = read_header(image_file(kind, size))
    assert header.media_type == media_type
    assert (header.height, header.width) == size
    assert header.orientation == 1


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exact": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_all_three_kinds_of_webp_tell_their_size(mode, options):
    file = io.BytesIO()
    Image.new(mode, (51, 33), 7).save(file, "WEBP", **options)
    header = read_header(file.getvalue())
    assert (header.height, header.width) == (33, 51)


def test_scans_of_a_jpeg_are_counted():
    assert read_header(jpeg()).scans == 1
    own = read_header(jpeg(progressive=True)).scans
    assert own > 3
    assert read_header(with_scans(20)).scans == own + 20


TOO_MANY = {
    "scans": (lambda: with_scans(60_000), MOST_SCANS),
    "segments": (lambda: with_segments(1_000_000), MOST_PARTS),
    "bytes between its segments": (lambda: with_filling(b"\xff" * 8_000_000), MOST_FILLING),
    "chunks": (lambda: png(before=chunk(b"abCd") * 500_000), MOST_PARTS),
}


@pytest.mark.parametrize("what", TOO_MANY)
def test_floods_are_refused_at_once_with_what_was_found_allowed_and_what_helps(what):
    make, most = TOO_MANY[what]
    file = make()
    began = time.process_time()
    with pytest.raises(BadFileError) as caught:
        read_header(file)
    assert time.process_time() - began < 0.5
    expected = f"found more than {most} {what} in the image, at most {most} are allowed: save it "
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        png(before=chunk(b"IDAT") * (MOST_PARTS + 1)),
        png(after=chunk(b"IDAT") * (MOST_PARTS + 1)),
        webp(webp_chunk(b"abcd") * (MOST_PARTS + 1)),
        with_filling(b"\xff\x00" * MOST_FILLING),
        with_filling(b"\xff\xd0" * MOST_FILLING),
        with_filling(b"\xff" + bytes(MOST_FILLING)),
    ],
    ids=["empty pixels", "empty pixels behind", "WebP", "stuffed", "restarts", "zeros"],
)
def test_further_floods_are_refused(file):
    with pytest.raises(BadFileError, match="found more than"):
        read_header(file)


def test_scans_that_hide_behind_markers_without_length_are_counted():
    hidden = b"\xff\x02\x0f\xff" + EMPTY_SCAN * MOST_SCANS
    with pytest.raises(BadFileError, match="scans"):
        read_header(jpeg(progressive=True)[:-2] + hidden + b"\xff\xd9")


def test_what_lies_behind_the_end_does_not_count():
    film = os.urandom(100_000).replace(b"\xff", b"\xff\xda\0\x08")
    for file in (jpeg() + film, png() + film, webp() + film):
        assert read_header(file).scans == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_without_its_last_bytes_is_not_whole(kind):
    file = image_file(kind, (60, 80))
    for missing in (1, 2, 5, 12, 13, len(file) - 40):
        if kind == "WEBP" and missing == 1 and file.endswith(b"\0"):
            continue
        with pytest.raises(BadFileError, match="its end is missing"):
            read_header(file[:-missing])


def test_metadata_is_left_out_and_pixels_are_kept():
    segment = b"\xff\xe1\x0f\xff" + b"Exif\0\0" + exif(300).ljust(0xFFF - 8, b"\0")
    file = jpeg()
    plain = plain_file(file, read_header(file))
    with_metadata = plain[:2] + segment + b"\xff\xfe\x00\x05abc" + plain[2:]
    assert plain_file(with_metadata, read_header(with_metadata)) == plain
    more = png(before=chunk(b"eXIf", exif(300)) + chunk(b"iCCP", b"x"), after=chunk(b"tEXt", b"x"))
    assert plain_file(more, read_header(more)) == png()


def test_a_file_with_nothing_to_leave_out_is_not_copied():
    file = png()
    assert plain_file(file, read_header(file)) is file


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(0, 300))
def test_damage_gives_a_header_or_an_image_error(noise, kind, place):
    file = bytearray(image_file(kind, (12, 9)))
    file[place : place + len(noise)] = noise
    try:
        header = read_header(bytes(file))
    except BadFileError:
        return
    assert header.height > 0
    assert header.width > 0
    assert 1 <= header.orientation <= 8
    assert len(plain_file(bytes(file), header)) <= len(file)
