"""The settings of a deployment on Ray Serve."""

import pytest
from pydantic import ValidationError

from anytime_server.ray_serve.settings import RaySettings


@pytest.mark.parametrize(
    ("text", "found"), [("1", (1, 1)), ("8", (8, 8)), ("1-8", (1, 8)), ("10-200", (10, 200))]
)
def test_replicas_are_a_number_or_a_range(text, found):
    assert RaySettings(replicas=text).replica_range == found


@pytest.mark.parametrize("text", ["0", "-1", "8-1", "1-", "1-0", "many", "1..8", "1-8-9", "1\n"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValidationError, match="replicas"):
        RaySettings(replicas=text)


def test_threads_are_shared_between_the_most_replicas():
    assert RaySettings(replicas="1-4").threads_each(16) == 4
    assert RaySettings(replicas="3").threads_each(2) == 1
    assert RaySettings(replicas="3", threads=5).threads_each(2) == 5


def test_the_environment_sets_them_as_it_does_the_servers(monkeypatch):
    monkeypatch.setenv("ANYTIME_REPLICAS", "2-3")
    monkeypatch.setenv("ANYTIME_MODELS", "street")
    settings = RaySettings()
    assert settings.replica_range == (2, 3)
    assert settings.model_names == ("street",)
