"""A lite network that cannot be built is refused; one that can survives its manifest."""

import pytest

from anytime_model.errors import ConfigError
from anytime_model.networks.lite.config import LiteConfig


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preset": "lite9"}, "'lite9'.*'lite0'"),
        ({"outputs": 0}, "outputs is 0"),
        ({"task": "depth"}, "'depth'"),
        ({"head_widths": (8, 8)}, "4 whole numbers"),
        ({"head_widths": (8, 8, 8, 0)}, "from 1"),
        ({"head_widths": (8, 8, 8, 10**7)}, "4096"),
    ],
)
def test_an_impossible_network_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        LiteConfig(**{"preset": "tiny", "outputs": 3} | changes)


def test_entries_of_a_manifest_give_the_same_network_back():
    config = LiteConfig("tiny", 3, head_widths=(8, 8, 8, 12))
    assert LiteConfig.from_entries(config.entries(), 3) == config
