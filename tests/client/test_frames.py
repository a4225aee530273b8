"""Images of folders and videos: nothing stale, nothing half-written."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from anytime_client import frames
from anytime_client.errors import ImageError
from anytime_client.frames import LatestImage, NamedImage
from client.factories import PIXELS
from client.video_files import served, write_clip


def test_a_newer_image_replaces_one_that_waits():
    slot = LatestImage()
    for name in "abc":
        slot.put(NamedImage(name, PIXELS))
    frame, dropped = slot.take()
    assert (frame.name, dropped) == ("c", 2)


def test_the_last_image_is_still_taken_after_the_end():
    slot = LatestImage()
    slot.put(NamedImage("a", PIXELS))
    slot.end()
    assert slot.take()[0].name == "a"
    assert slot.take() is None


def test_a_reader_waits_for_an_image():
    slot = LatestImage()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(slot.take)
        slot.put(NamedImage("late", PIXELS))
        assert taken.result(5)[1] == 0


def test_an_error_of_the_source_reaches_the_reader():
    def broken():
        yield NamedImage("a", PIXELS)
        raise ImageError("torn")

    slot = frames.read_latest(broken())
    with pytest.raises(ImageError, match="torn"):
        list(iter(slot.take, None))


def test_a_folder_gives_its_images_by_name_and_nothing_else(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [frame.name for frame in frames.list_folder(tmp_path)] == ["a.JPG", "b.png"]


def test_a_watched_folder_gives_new_and_rewritten_files(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "_POLL_S", 0.0)
    found = frames.watch_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"one")
    assert next(found).name == "a.png"
    (tmp_path / "b.png").write_bytes(b"two")
    assert next(found).name == "b.png"
    (tmp_path / "a.png").write_bytes(b"three")
    assert next(found).name == "a.png"


def test_a_video_gives_its_frames_in_order_with_their_times(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    found = list(frames.read_video(str(path), paced=False))
    assert [frame.name for frame in found] == ["clip-000000", "clip-000001", "clip-000002"]
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.04, 0.08], abs=1e-3)
    means = [float(frame.image.mean()) for frame in found]
    np.testing.assert_allclose(means, [20, 120, 220], atol=6)


def test_a_paced_video_waits_for_the_time_of_each_frame(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(frames.time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(frames.time, "sleep", waits.append)
    path = write_clip(tmp_path / "clip.mp4", times_ms=(0, 40, 90))
    assert len(list(frames.read_video(str(path), paced=True))) == 3
    assert waits == pytest.approx([0, 0.04, 0.09], abs=1e-3)


def test_a_url_is_a_video_that_keeps_its_own_pace(tmp_path):
    write_clip(tmp_path / "clip.mkv")
    with served(tmp_path) as url:
        found = list(frames.read_video(f"{url}/clip.mkv", paced=False))
        with pytest.raises(ImageError, match=r"lake\.mkv"):
            list(frames.read_video(f"{url}/lake.mkv", paced=False))
    assert [frame.name for frame in found] == ["stream-000000", "stream-000001", "stream-000002"]
    assert frames.is_live(url)


def test_a_file_that_is_no_video_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "clip.mp4"
    Image.fromarray(PIXELS).save(path, "PNG")
    path.write_bytes(b"no video at all")
    with pytest.raises(ImageError, match=r"clip\.mp4"):
        list(frames.read_video(str(path), paced=False))
