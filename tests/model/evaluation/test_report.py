"""Reports survive JSON."""

from __future__ import annotations

import json

import pytest

from anytime_model.errors import ConfigError
from anytime_model.evaluation.report import EvaluationReport, ExitScores


def report() -> EvaluationReport:
    exits = tuple(
        ExitScores(
            k, 0.1 * k, {"road": 0.2, "sky": None}, 0.5, 0.03, 0.1, None, 2.0**30 * k, 2.0**30
        )
        for k in range(1, 5)
    )
    return EvaluationReport(
        "m", "CamVid test", "mIoU", 3, 1.5, False, "max_probability", (0.9, 0.9, 0.9), 0.3, exits
    )


def test_a_report_survives_json() -> None:
    assert EvaluationReport.from_json(report().to_json()) == report()
    assert json.loads(report().to_json())["exits"][0]["by_output"]["sky"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"exits": [{"exit": 1}]}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no saved report"):
        EvaluationReport.from_json(text)
