"""`anytime-server simulate`."""

import pytest
import typer
from typer.testing import CliRunner

from anytime_server.simulation.command import simulate_traffic

app = typer.Typer()
app.command("simulate")(simulate_traffic)


def run(*flags):
    return CliRunner().invoke(app, ["--duration-s", "20", *flags])


@pytest.mark.slow
def test_strategies_are_compared_in_one_table():
    result = run("--policies", "ours,fifo,static-1", "--load", "2")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert [row[0] for row in rows] == ["policy", "ours", "fifo", "static-1"]
    attained = {row[0]: float(row[2].rstrip("%")) for row in rows[1:]}
    assert attained["ours"] > attained["fifo"]


def test_recorded_arrivals_are_replayed(tmp_path):
    (tmp_path / "times").write_text("0.5\n1.0\n1.5\n")
    result = run("--policies", "ours", "--arrivals", str(tmp_path / "times"))
    assert result.output.splitlines()[1].split()[1] == "3"


def test_a_flag_that_makes_no_sense_is_named():
    for flags in (
        ("--policies", "magic"),
        ("--stages-ms", "x"),
        ("--quality", "0.5"),
        ("--deadlines", "0-1"),
        ("--arrivals", "/nowhere"),
    ):
        result = run(*flags)
        assert result.exit_code == 2, flags
        assert "anytime-server: " in result.output
