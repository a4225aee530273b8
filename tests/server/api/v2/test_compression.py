"""Content codings: ours and the standard library's read each other."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.errors import FieldError
from anytime_server.api.v2.compression import (
    Coding,
    accepted_coding,
    coding_of,
    decompress,
    deflate,
    join,
)
from anytime_server.errors import RefusedError

PACK = {Coding.GZIP: gzip.compress, Coding.DEFLATE: zlib.compress}
UNPACK = {Coding.GZIP: gzip.decompress, Coding.DEFLATE: zlib.decompress}
CODINGS = st.sampled_from(Coding)


@given(head=st.binary(max_size=300), tail=st.binary(max_size=3000), coding=CODINGS)
def test_two_parts_compressed_apart_are_one_stream(head, tail, coding):
    packed = join(head, tail, deflate(tail), coding)
    assert UNPACK[coding](packed) == head + tail
    one_pass = zlib.decompressobj(47)  # what clients use that read while they receive
    assert one_pass.decompress(packed) == head + tail
    assert one_pass.eof
    assert not one_pass.unused_data


@given(data=st.binary(max_size=3000), coding=CODINGS)
def test_bodies_are_unpacked_up_to_the_limit(data, coding):
    assert decompress(PACK[coding](data), coding, len(data)) == data
    if data:
        assert decompress(PACK[coding](data), coding, len(data) - 1) is None


@pytest.mark.parametrize("coding", Coding)
def test_a_bomb_is_unpacked_no_further_than_the_limit(coding):
    assert decompress(PACK[coding](bytes(50_000_000)), coding, 1000) is None


@pytest.mark.parametrize("coding", Coding)
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda packed: packed[:-1], "ends too soon"),
        (lambda packed: b"", "ends too soon"),
        (lambda packed: packed + b"x", "1 bytes behind the stream"),
        (lambda packed: b"x" + packed, "cannot be unpacked"),
        (lambda packed: packed[:-1] + bytes([packed[-1] ^ 1]), "cannot be unpacked"),
    ],
)
def test_what_is_not_one_whole_stream_is_refused(coding, spoil, found):
    with pytest.raises(FieldError, match=found):
        decompress(spoil(PACK[coding](b"some data")), coding, 1000)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None),
        ("identity", None),
        ("gzip", Coding.GZIP),
        ("X-GZIP", Coding.GZIP),
        (" Deflate ", Coding.DEFLATE),
    ],
)
def test_the_coding_of_a_body_is_that_of_its_header(header, coding):
    assert coding_of(header) is coding


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip"])
def test_other_codings_are_refused(header):
    with pytest.raises(RefusedError, match="expected gzip, deflate or none"):
        coding_of(header)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None),
        ("br", None),
        ("gzip", Coding.GZIP),
        ("deflate", Coding.DEFLATE),
        ("gzip, deflate, br", Coding.GZIP),
        ("gzip;q=0.5, deflate;q=0.8", Coding.DEFLATE),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("identity, gzip;q=0.5", None),
        ("*", None),
    ],
)
def test_answers_are_compressed_as_the_client_prefers(header, coding):
    assert accepted_coding(header) is coding
