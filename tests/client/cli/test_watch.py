"""`anytime watch`."""

import json
import re

import pytest

from anytime_protocol.messages import OpenStream, ReuseOptions
from client.fakes import fake_server
from client.video_files import read_clip, served, write_clip


def test_every_image_of_a_folder_is_predicted_once(anytime, url, image):
    image.with_name("torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    done = anytime(url, "watch", image.parent, "--once", "--json")
    assert done.returncode == 0, done.stderr
    names = [json.loads(line)["frame"] for line in done.stdout.splitlines()]
    assert names == ["street.png", "torn.png"]


def test_files_that_are_no_images_are_skipped_and_the_code_is_1(anytime, url, image):
    image.with_name("a.bmp").write_bytes(b"no image")
    done = anytime(url, "watch", image.parent, "--once", "--json")
    assert (done.returncode, b"a.bmp: found 8 bytes of no known format" in done.stderr) == (1, True)
    assert json.loads(done.stdout)["frame"] == "street.png"


def test_a_folder_without_images_is_reported(anytime, url, tmp_path):
    done = anytime(url, "watch", tmp_path, "--once")
    assert (done.returncode, b"found no images" in done.stderr) == (0, True)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mkv", times_ms=(0, 40, 120))


def test_a_video_is_followed_frame_by_frame_and_figures_come_last(anytime, url, clip):
    done = anytime(url, "watch", clip, "--every", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == ["clip-000000", "clip-000001", "clip-000002"]
    assert all(line["exit"] == 4 and line["reused_share"] == 0.5 for line in lines)
    figures = json.loads(done.stderr)
    expected = {"frames": 3, "dropped": 0, "failed": 0, "mean_exit": 4, "reused_share": 0.5}
    expected |= {"p50_ms": 10, "p95_ms": 10, "p99_ms": 10}
    assert figures | expected == figures
    assert figures["difference"] == {"share": 0.01, "frames": 3}


def test_the_figures_are_told_in_words_on_standard_error(anytime, url, clip):
    done = anytime(url, "watch", clip, "--every")
    assert done.stdout.count(b"50 % reused") == 3
    text = done.stderr.decode()
    assert "3 frames in " in text
    assert "exit 4.0 on average; half of the answers within 10.0 ms" in text
    assert "50 % of the pixels reused; of these answers 1.00 % of the pixels differ" in text


def test_maps_become_a_video_with_the_times_of_the_frames(anytime, url, clip, tmp_path):
    done = anytime(url, "watch", clip, "--every", "--out", tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    times, pixels = read_clip(tmp_path / "out.mp4")
    assert [at - times[0] for at in times] == [0, 40, 120]
    assert pixels[0].shape == (48, 64, 3)


def test_a_url_is_followed(anytime, url, clip):
    with served(clip.parent) as address:
        done = anytime(url, "watch", f"{address}/clip.mkv", "--json", "--every")
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()][-1] == "stream-000002"


@pytest.mark.parametrize(
    ("arguments", "reuse"),
    [
        ([], None),
        (["--no-reuse"], None),
        (["--reuse"], ReuseOptions()),
        (
            ["--reuse", "--max-age", "9", "--max-difference", "0.1", "--motion"],
            ReuseOptions(9, 0.1, motion=True),
        ),
    ],
)
def test_reuse_is_bounded_as_the_options_say(anytime, clip, arguments, reuse):
    with fake_server() as server:
        assert anytime(server.url, "watch", clip, "--share", "0.5", *arguments).returncode == 0
        opened = server.wait_for(OpenStream)
    assert (opened.reuse, opened.share) == (reuse, 0.5)


def test_the_view_shows_maps_in_a_terminal_that_is_wide_enough(anytime, url, clip, monkeypatch):
    refused = anytime(url, "watch", clip, "--view")
    assert (refused.returncode, b"no terminal" in refused.stderr) == (2, True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    refused = anytime(url, "watch", clip, "--view")
    assert (refused.returncode, b"columns" in refused.stderr) == (2, True)
    monkeypatch.setenv("COLUMNS", "60")
    done = anytime(url, "watch", clip, "--every", "--view")
    assert done.returncode == 0
    assert "\u2580" * 10 in _without_escapes(done.stderr)
    assert done.stdout == b""


def _without_escapes(data):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())


def test_what_is_no_source_is_told_with_what_may_be_one(anytime, url, tmp_path):
    done = anytime(url, "watch", tmp_path / "lake.mp4")
    assert (
        done.returncode,
        b"expected a folder, a video file, a camera or a URL" in done.stderr,
    ) == (
        2,
        True,
    )
