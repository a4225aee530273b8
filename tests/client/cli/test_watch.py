"""`anytime watch`."""

import json


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
