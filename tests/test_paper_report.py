"""The report on the paper is what its sources say, and leaves out no table or figure."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REPORT = (ROOT / "docs" / "PAPER.md").read_text("utf-8")


@pytest.mark.slow
def test_the_report_is_up_to_date():
    check = [sys.executable, ROOT / "bench" / "paper.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", range(1, 7))
def test_every_table_of_the_paper_has_its_section(number):
    assert re.search(rf"^## Table {number}: ", REPORT, re.MULTILINE)


def test_every_figure_of_the_paper_has_its_row():
    rows = re.findall(r"^\| ([\d, leftrigh]+) \|.*\|.*\|$", REPORT, re.MULTILINE)
    numbers = {int(number) for row in rows for number in re.findall(r"\d+", row)}
    assert set(range(1, 11)) <= numbers


def test_every_claim_has_a_verdict():
    section = REPORT.split("## Does it hold?")[1].split("\n## ")[0]
    claims = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(claims) >= 10
    assert all(re.search(r"\*\*(holds|holds weaker|not reproduced)\*\* \|$", c) for c in claims)


@pytest.mark.parametrize("part", ["Criterion", "Threshold", "Filling", "Heads"])
def test_every_ablation_has_its_table(part):
    section = REPORT.split("## Ablations")[1].split("\n## ")[0]
    table = re.search(rf"^{part} .*?\n\n(\|.*?)\n\n", section, re.MULTILINE | re.DOTALL)
    assert table is not None
    assert table[1].count("\n") >= 4
