"""The report of the audit of pinned packages (`.ci/audit.py`)."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"


def report(*packages):
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.report(list(packages))


SOUND = {"name": "sound", "version": "1.0", "vulns": []}
HOLED = {"name": "holed", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not on PyPI"}


def test_a_known_hole_fails_the_audit_and_names_its_cure():
    assert report(SOUND, HOLED) == "holed 2.0: PYSEC-1, mended in 2.1"


def test_packages_without_advisories_pass_and_those_unknown_are_named(capsys):
    assert report(SOUND, UNKNOWN) is None
    assert "unknown: not on PyPI" in capsys.readouterr().out


def test_an_index_without_advisories_is_no_audit_and_no_failure(capsys):
    assert report(UNKNOWN) is None
    assert "NOT AUDITED" in capsys.readouterr().out
