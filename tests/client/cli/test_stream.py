"""`anytime stream`."""

import json

from PIL import Image


def test_every_exit_is_shown_and_saved(anytime, url, image, tmp_path):
    out = tmp_path / "maps"
    done = anytime(url, "stream", image, "--out", out, "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(out.iterdir())] == [
        f"street-exit{number}.png" for number in range(1, 5)
    ]
    assert "4/4" in done.stderr.decode()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6


def test_json_is_one_line_an_exit_and_one_for_the_result(anytime, url, image):
    lines = anytime(url, "stream", image, "--json").stdout.splitlines()
    found = [(fields["type"], fields["exit"]) for fields in map(json.loads, lines)]
    assert found == [("update", 1), ("update", 2), ("update", 3), ("update", 4), ("final", 4)]
