"""Images of folders and videos: nothing stale, nothing half-written."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from anytime_client import frames
from anytime_client.errors import ImageError
from anytime_client.frames import LatestImage, NamedImage
from client.factories import PIXELS


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


def test_a_video_gives_its_frames_in_order(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for brightness in (20, 120, 220):
            pixels = np.full((48, 64, 3), brightness, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    found = list(frames.read_video(str(path), paced=False))
    assert [frame.name for frame in found] == ["clip-000000", "clip-000001", "clip-000002"]
    means = [float(frame.image.mean()) for frame in found]
    np.testing.assert_allclose(means, [20, 120, 220], atol=6)


def test_a_file_that_is_no_video_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "clip.mp4"
    Image.fromarray(PIXELS).save(path, "PNG")
    path.write_bytes(b"no video at all")
    with pytest.raises(ImageError, match=r"clip\.mp4"):
        list(frames.read_video(str(path), paced=False))
