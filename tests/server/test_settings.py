"""Settings from the environment and from flags."""

import re

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from anytime_server.cli import app
from anytime_server.settings import Settings


def test_defaults_are_safe():
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.token is None
    assert settings.limits.max_pixels == 26_214_400
    assert settings.max_computed_pixels == 4_194_304
    assert settings.limits.max_payload_bytes == 32 * 1024 * 1024


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("ANYTIME_PORT", "9000")
    monkeypatch.setenv("ANYTIME_MODELS", "street, pose")
    monkeypatch.setenv("ANYTIME_TOKEN", "secret")
    settings = Settings()
    assert settings.port == 9000
    assert settings.model_names == ("street", "pose")
    assert "secret" not in repr(settings)
    assert Settings(port=1).port == 1


@pytest.mark.parametrize("name", ["token", "operator_token"])
def test_a_token_from_a_file_loses_its_line_end_and_an_empty_one_is_none(name):
    assert getattr(Settings(**{name: "s3cret==\n"}), name).get_secret_value() == "s3cret=="
    assert getattr(Settings(**{name: ""}), name) is None


@pytest.mark.parametrize("wrong", [" ", "\n", "a b", "sécret", "a\nb", "a,b"])
def test_a_token_that_no_client_can_send_is_refused_without_being_shown(wrong):
    result = CliRunner().invoke(app, ["serve", "--token", wrong])
    assert result.exit_code == 2
    assert "token" in result.output
    assert "openssl rand" in result.output
    assert wrong.strip() == "" or wrong not in result.output


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().port = 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"max_pixels": 0},
        {"profile_size": "0x5"},
        {"profile_size": "big"},
        {"profile_size": "99999x99999"},
        {"engine": "magic"},
        {"sigmas": -1},
        {"hang_s": 0},
        {"nonsense": 1},
    ],
)
def test_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_derived_values():
    settings = Settings(profile_size="90x120", origins="https://a.example,", sigmas=1.5)
    assert settings.profile_height_width == (90, 120)
    assert settings.allowed_origins == {"https://a.example"}
    assert settings.scheduling.sigmas == 1.5


def test_help_explains_every_setting_with_its_variable():
    result = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "400", "TERM": "dumb"})
    assert result.exit_code == 0
    plain = re.sub(r"\s+", " ", result.output)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in plain
        assert f"ANYTIME_{name.upper()}" in plain


def test_a_wrong_flag_is_named_and_ends_with_2():
    result = CliRunner().invoke(app, ["serve", "--port", "99999"])
    assert result.exit_code == 2
    assert "port" in result.output


def test_executors_are_a_number_or_auto_and_each_has_room_for_a_request():
    assert Settings().executors == 1
    assert Settings(executors="auto").executors == "auto"
    assert Settings(executors="3").executors == 3
    for wrong in ("many", 0, 257):
        with pytest.raises(ValidationError):
            Settings(executors=wrong)
    with pytest.raises(ValidationError, match="at least one request for each executor"):
        Settings(executors=4, max_requests=3)
