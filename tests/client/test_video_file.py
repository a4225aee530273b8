"""Videos that are written: pictures at their times, and errors that say what to do."""

from pathlib import Path

import pytest
from PIL import Image

from anytime_client import video_file
from anytime_client.output import OutputError
from anytime_client.video_file import VideoWriter, is_video_name
from client.video_files import read_clip

pytest.importorskip("av", reason="PyAV is not installed")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_each_picture_has_its_own_time_and_the_size_of_the_first(tmp_path, suffix):
    writer = VideoWriter(tmp_path / "new folder" / f"clip.{suffix}")
    for size, time_s in (((33, 21), 0.0), ((33, 21), 0.5), ((66, 42), 0.52), ((33, 21), 0.4)):
        writer.add(Image.new("RGB", size, (200, 200, 200)), time_s)
    writer.close()
    times, pixels = read_clip(tmp_path / "new folder" / f"clip.{suffix}")
    assert times == [0, 500, 520, 521]  # a time that does not rise is moved on
    assert {frame.shape for frame in pixels} == {(22, 34, 3)}  # even sides, as codecs want them
    assert abs(pixels[-1].mean() - 200) < 8


def test_a_video_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"clip\.mp4"):
        VideoWriter(tmp_path / "file" / "clip.mp4")


def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "find_spec", lambda _: None)
    with pytest.raises(OutputError, match="pip install av"):
        VideoWriter(tmp_path / "clip.mp4")


def test_videos_are_known_by_their_suffix():
    assert [is_video_name(Path(name)) for name in ("a.MP4", "b.png", "maps")] == [
        True,
        False,
        False,
    ]
