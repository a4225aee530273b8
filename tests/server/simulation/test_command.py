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
    attained = {row[0]: float(row[5].rstrip("%")) for row in rows[1:]}
    assert attained["ours"] > attained["fifo"]


def test_recorded_arrivals_are_replayed(tmp_path):
    (tmp_path / "times").write_text("0.5\n1.0\n1.5\n")
    result = run("--policies", "ours", "--arrivals", str(tmp_path / "times"))
    assert result.output.splitlines()[1].split()[3] == "3"


def test_the_time_beside_the_network_slows_a_machine_down():
    slow, fast = (run("--policies", "fifo", "--run-ms", ms) for ms in ("20", "0"))
    rates = [float(result.output.splitlines()[1].split()[4]) for result in (slow, fast)]
    assert rates[0] < rates[1]


def test_routers_and_numbers_of_executors_are_compared_in_one_table():
    result = run(
        "--policies", "ours", "--routers", "ours,round-robin", "--replicas", "1,2",
        "--load", "0.5", "--duration-s", "5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [line.split()[1:3] for line in result.output.splitlines()[1:]]
    assert rows == [[name, n] for n in "12" for name in ("ours", "round-robin")]


def test_cameras_send_as_many_images_as_they_say():
    result = run("--policies", "ours", "--cameras", "3", "--fps", "2")
    assert int(result.output.splitlines()[1].split()[3]) == pytest.approx(3 * 2 * 20, abs=3)


def test_a_flag_that_makes_no_sense_is_named():
    for flags in (
        ("--policies", "magic"),
        ("--stages-ms", "x"),
        ("--quality", "0.5"),
        ("--deadlines", "0-1"),
        ("--arrivals", "/nowhere"),
        ("--load", "0"),
        ("--load", "inf"),
        ("--load", "nan"),
        ("--load", "1e9"),
        ("--duration-s", "inf"),
        ("--jitter", "inf"),
        ("--jitter", "nan"),
        ("--run-ms", "inf"),
        ("--quality", "0.5,0.6,0.7,nan"),
        ("--policies", "static-9"),
        ("--policies", "static-0"),
        ("--policies", "ours,,fifo"),
        ("--routers", "magic"),
        ("--replicas", "0"),
        ("--replicas", "two"),
        ("--uneven", "nan"),
    ):
        result = run(*flags)
        assert result.exit_code == 2, flags
        assert "anytime-server: " in result.output
