"""`anytime stream`."""

import json
import re

import pytest
from PIL import Image


def test_every_exit_is_shown_and_saved(anytime, url, image, tmp_path):
    out = tmp_path / "maps"
    done = anytime(url, "stream", image, "--out", out, "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(out.iterdir())] == [
        f"street-exit{number}.png" for number in range(1, 5)
    ]
    assert "4 of 4" in done.stdout.decode()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6


def test_json_is_one_line_an_exit_and_one_for_the_result(anytime, url, image):
    lines = anytime(url, "stream", image, "--json").stdout.splitlines()
    found = [(fields["type"], fields["exit"]) for fields in map(json.loads, lines)]
    assert found == [("update", 1), ("update", 2), ("update", 3), ("update", 4), ("final", 4)]


def test_exits_have_their_size_and_may_be_passed_over(anytime, url, image, tmp_path):
    arguments = ["--model", "ladder", "--out", tmp_path, "--sheet", tmp_path / "sheet.png"]
    done = anytime(url, "stream", image, *arguments)
    assert done.returncode == 0, done.stderr
    table = [line.split("  ")[0].strip() for line in done.stdout.decode().splitlines()]
    shown = ["1 of 4 (240 px)", "2 of 4 (240 px)", "4 of 4 (480 px)"]
    assert [line for line in table if "of 4 (" in line and "exit" not in line] == shown
    assert "exit 4 of 4 (480 px), complete" in done.stdout.decode()
    files = ["sheet.png", "street-exit1.png", "street-exit2.png", "street-exit4.png", "street.png"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == files


def test_a_table_of_exits_with_sizes_fits_in_80_columns(anytime, url, image):
    printed = anytime(url, "stream", image, "--model", "ladder").stdout.decode()
    assert "elapsed ms  compute ms  GMACs  confident  settled  changed" in printed
    assert "…" not in printed


def test_json_gives_the_size_of_each_exit(anytime, url, image):
    lines = anytime(url, "stream", image, "--model", "ladder", "--json").stdout.splitlines()
    found = [(fields["exit"], fields["side"]) for fields in map(json.loads, lines)]
    assert found == [(1, 240), (2, 240), (4, 480), (4, 480)]


@pytest.mark.parametrize("command", [["stream", "IMAGE"], ["models"], ["bench", "IMAGE", "-n", 2]])
def test_no_number_is_cut_on_a_narrow_terminal(anytime, url, image, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "40")
    done = anytime(url, *(image if word == "IMAGE" else word for word in command))
    printed = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "\u2026" not in printed
    tables = [line for line in printed.splitlines() if re.search(r"\d\s\s", line)]
    assert max(map(len, tables)) <= 40


def test_several_images_have_a_sheet_each(anytime, url, image, tmp_path):
    other = image.with_name("other.png")
    other.write_bytes(image.read_bytes())
    sheets = tmp_path / "sheets"
    done = anytime(url, "stream", image, other, "--sheet", sheets, "--json")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(sheets.iterdir())] == ["other.png", "street.png"]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {fields["image"] for fields in lines} == {str(image), str(other)}
