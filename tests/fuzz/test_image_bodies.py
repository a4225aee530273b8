"""Damaged photos: each is an image or an image error, in bounded time and memory."""

import io
import resource
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from anytime_protocol.enums import ErrorCode
from anytime_server import images
from anytime_server.errors import ImageRejectedError
from fuzz.mutations import damaged

SAMPLES = Path(__file__).parents[2] / "client/web/samples"
MOST_PX = 2**20
MOST_S = 3.0
MOST_GROWTH_KB = 300_000


@cache
def photos(kind):
    """Real photos in the forms that a format has."""
    forms = {
        "JPEG": [
            ("RGB", {}),
            ("RGB", {"progressive": True, "comment": b"a comment"}),
            ("L", {"restart_marker_rows": 1}),
            ("CMYK", {}),
        ],
        "PNG": [("RGB", {}), ("P", {}), ("RGBA", {}), ("1", {}), ("I;16", {}), ("LA", {})],
        "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGBA", {"quality": 30})],
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"
    found = []
    for path in sorted(SAMPLES.glob("*.jpg")):
        with Image.open(path) as photo:
            small = photo.resize((photo.width // 4, photo.height // 4))
        for mode, options in forms[kind]:
            image = small.convert("L").convert(mode) if mode == "I;16" else small.convert(mode)
            for more in ({}, {"exif": exif}):
                file = io.BytesIO()
                image.save(file, kind, **options, **more)
                found.append(file.getvalue())
    if kind != "JPEG":
        file = io.BytesIO()
        small.save(file, kind, save_all=True, append_images=[small.rotate(90), small.rotate(180)])
        found.append(file.getvalue())
    else:
        found += [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))]
    return found


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    images.warm_up()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_GROWTH_KB


def read(data, side):
    """What becomes of a file."""
    try:
        header = images.probe(data, MOST_PX)
        return header, images.decode(data, header, side)
    except ImageRejectedError as error:
        return error


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_photo_is_an_image_or_an_image_error(kind):
    @settings(suppress_health_check=list(HealthCheck), deadline=None)
    @given(damaged(photos(kind)), st.sampled_from((None, 8, 64)))
    def check(data, side):
        began = time.process_time()
        found = read(data, side)
        assert time.process_time() - began < MOST_S
        if isinstance(found, ImageRejectedError):
            assert found.code in {ErrorCode.BAD_IMAGE, ErrorCode.TOO_MANY_PIXELS}
            assert len(str(found)) < 300
            return
        header, decoded = found
        height, width = header.height, header.width
        assert decoded.size == ((width, height) if header.orientation > 4 else (height, width))
        assert decoded.image.dtype == np.uint8
        assert decoded.image.shape[2:] == (3,)
        assert max(decoded.image.shape[:2]) <= max(height, width)
        if side is None:
            assert decoded.image.shape[:2] == decoded.size

    check()
