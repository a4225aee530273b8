"""Damage as accidents and strangers do it: bytes set, cut, repeated, moved; numbers at limits."""

from hypothesis import strategies as st

NUMBERS = [b"\0", b"\xff", b"\x7f\xff", b"\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff" * 4]
JPEG_MARKERS = [bytes((0xFF, kind)) for kind in (0, 0xC0, 0xC2, 0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xDB)]
WORDS = [
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"eXIf",
    b"acTL",
    b"VP8X",
    b"VP8L",
    b"ANMF",
    b"EXIF",
    b"Exif\0\0",
]


@st.composite
def damaged(draw, files):
    """One of some files (or texts, as bytes), damaged in up to 6 places.

    Args:
        draw: Hypothesis'.
        files: that are damaged.
    """
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 6))):
        # Headers stand at the start, so half of the damage is there.
        end = max(draw(st.sampled_from((min(len(data), 200), len(data)))), 1)
        at = draw(st.integers(0, end - 1))
        length = draw(st.sampled_from((1, 2, 4, 12, 100, 5000)))
        match draw(
            st.sampled_from(("set", "set number", "insert", "cut", "repeat", "move", "end"))
        ):
            case "set":
                noise = draw(st.binary(min_size=1, max_size=8))
                data[at : at + len(noise)] = noise
            case "set number":
                number = draw(st.sampled_from(NUMBERS + JPEG_MARKERS + WORDS))
                data[at : at + len(number)] = number
            case "insert":
                data[at:at] = draw(st.sampled_from(NUMBERS + JPEG_MARKERS + WORDS))
            case "cut":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length] * draw(st.sampled_from((1, 3, 200)))
            case "move":
                piece = data[at : at + length]
                del data[at : at + length]
                there = draw(st.integers(0, len(data)))
                data[there:there] = piece
            case "end":
                del data[at:]
    return bytes(data[:2_000_000])
