"""An HRNet that cannot be built is refused."""

import pytest

from anytime_model.errors import ConfigError
from anytime_model.networks.hrnet.config import NetworkConfig


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preset": "w19"}, "'w19'.*'w18'"),
        ({"outputs": 0}, "outputs is 0"),
        ({"task": "depth"}, "'depth'"),
        ({"exits": "none"}, "'none'"),
        ({"depths": (3, 2)}, "3 whole numbers"),
        ({"depths": (4, 2, 1)}, "from 1 to 3"),
        ({"head_width": -1}, "head_width is -1"),
        ({"head_width": 10**7}, "at most 4096"),
    ],
)
def test_an_impossible_network_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        NetworkConfig(**{"preset": "tiny", "outputs": 3} | changes)
