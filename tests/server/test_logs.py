"""What the server logs, and what it does not."""

import json
import logging
import warnings

import pytest

from anytime_server import logs


@pytest.fixture
def unchanged_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.filterwarnings("default")
def test_warnings_of_libraries_are_lines_like_all_others(unchanged_logging, capsys):
    logs.configure("info", as_json=True)
    warnings.warn("corrupt EXIF data", UserWarning, stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["level"] == "warning"
    assert "corrupt EXIF data" in entry["message"]
