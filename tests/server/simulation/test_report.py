"""Results of simulations, as percentiles and as a table."""

import math

import pytest

from anytime_server.simulation.report import Percentiles, Report, percentiles, table


def make(strategy="ours", exits=(1, 0, 3), **changes):
    values = {
        "arrivals": 10,
        "duration_s": 4.0,
        "replicas": 1,
        "router": "ours",
        "refused": {"overloaded": 2, "draining": 1},
        "failed": 1,
        "late": 1,
        "cancelled": 1,
        "endings": {},
        "attainment": 4 / 9,
        "quality": 0.5,
        "deepest": 1.0,
        "first_exit_s": Percentiles(0.01, 0.02, 0.03),
        "answer_s": Percentiles(0.1, 0.2, 0.3),
        "busy": 0.5,
        "wasted": 0.0,
        "replica_s": 2.0,
    }
    return Report(strategy, exits=exits, **values | changes)


def test_percentiles_are_taken_by_the_nearest_rank():
    assert percentiles([n / 100 for n in range(100, 0, -1)]) == (0.5, 0.95, 0.99)
    assert percentiles([None, 2.0, None]) == (2.0, 2.0, 2.0)
    assert all(math.isnan(value) for value in percentiles([None]))


def test_the_mean_exit_counts_answers_in_time():
    assert make().mean_exit == pytest.approx(2.5)
    assert math.isnan(make(exits=(0, 0)).mean_exit)


def test_a_table_has_a_line_for_each_report_and_aligned_columns():
    lines = table([make(), make("static-1", exits=(0,), arrivals=123456)]).splitlines()
    assert [line.split()[0] for line in lines] == ["policy", "ours", "static-1"]
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[4:] == [
        *("2.50", "44.44%", "0.500", "3", "1", "1", "25/0/75", "2.50"),
        *("10", "30", "300", "50.0%", "0.0%", "0.5", "500"),
    ]
    assert lines[2].split()[10:12] == ["-", "-"]
