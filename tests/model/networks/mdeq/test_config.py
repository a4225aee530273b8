"""An MDEQ that cannot be built is refused; one that can survives its manifest."""

import pytest

from anytime_model.errors import ConfigError
from anytime_model.networks.mdeq import MdeqConfig


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preset": "huge"}, "'huge'.*'small', 'xl'"),
        ({"outputs": 0}, "outputs is 0"),
        ({"task": "depth"}, "'depth'"),
        ({"iterations": (4, 4, 6)}, "rising"),
        ({"iterations": (0, 1)}, ">= 1"),
        ({"iterations": (5,)}, "at least two"),
    ],
)
def test_an_impossible_network_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        MdeqConfig(**{"preset": "tiny", "outputs": 3} | changes)


def test_entries_of_a_manifest_give_the_same_network_back():
    config = MdeqConfig("tiny", 3, iterations=(2, 5, 9))
    assert MdeqConfig.from_entries(config.entries(), 3) == config
