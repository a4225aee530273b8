"""`anytime models`."""

import json


def test_models_are_listed(anytime, url):
    assert b"street" in anytime(url, "models").stdout
    models = json.loads(anytime(url, "models", "--json").stdout)["models"]
    assert [model["name"] for model in models] == ["street", "pose"]
