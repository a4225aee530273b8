"""The file of tokens with quotas."""

import pytest
from typer.testing import CliRunner

from anytime_server.cli import app
from anytime_server.tokens import read_tokens


def written(folder, text):
    path = folder / "tokens.toml"
    path.write_text(text)
    return path


def test_each_table_is_a_token_with_its_quota(tmp_path):
    text = '[a]\ntoken = "x"\n[b]\ntoken = "y"\nrequests_per_s = 2.5\nin_flight = 3\nurgency = 4\n'
    found = read_tokens(written(tmp_path, text))
    assert found["a"].requests_per_s is found["a"].in_flight is None
    assert (found["b"].requests_per_s, found["b"].in_flight, found["b"].urgency) == (2.5, 3, 4)
    assert "'y'" not in repr(found)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[a]\n", "token"),
        ('[a]\ntoken = "x y"\n', "openssl"),
        ('[a]\ntoken = "secret"\nin_flight = 0\n', "in_flight"),
        ('[a]\ntoken = "secret"\nrequests = 1\n', "requests"),
        ('[a]\ntoken = "secret"\n[b]\ntoken = "secret"\n', "the same token"),
        ("a = 1\n", "a"),
        ("nonsense", "tokens.toml is no TOML"),
    ],
)
def test_what_makes_no_sense_ends_the_start_with_a_sentence(tmp_path, text, named):
    result = CliRunner().invoke(app, ["serve", "--tokens", str(written(tmp_path, text))])
    assert result.exit_code == 2
    assert named in result.output
    assert "secret" not in result.output
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = CliRunner().invoke(app, ["serve", "--tokens", str(tmp_path / "nothing.toml")])
    assert result.exit_code == 2
    assert "nothing.toml" in result.output
