"""What the tests with clients and servers of others share."""

import pytest

from model.factories import save_tiny


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    """A folder with small networks, served in milliseconds."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    return folder
