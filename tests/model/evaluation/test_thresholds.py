"""The choice of the masks' threshold."""

from __future__ import annotations

import pytest

from anytime_model.data.camvid import CamVid
from anytime_model.evaluation.measure import MeasureSettings
from anytime_model.evaluation.thresholds import choose
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from model.data_factories import camvid_tree
from model.factories import tiny_network


@pytest.fixture(name="streets", scope="module")
def _streets(tmp_path_factory: pytest.TempPathFactory) -> CamVid:
    return CamVid(camvid_tree(tmp_path_factory.mktemp("camvid")), "test")


@pytest.fixture(name="network")
def _network() -> AnytimeNetwork:
    return tiny_network(outputs=11)


@pytest.mark.slow
def test_the_boldest_threshold_that_loses_little_is_chosen(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    bold = choose(network, streets, MeasureSettings(), allowed_loss=1.0, candidates=(0.9, 0.5, 0.2))
    assert bold.threshold == 0.2
    assert [t for t, _ in bold.tried] == [0.9, 0.5, 0.2]
    assert bold.tried[-1][1].maskable_saved >= bold.tried[0][1].maskable_saved
    assert bold.unmasked.maskable_saved == 0
    none = choose(network, streets, MeasureSettings(), allowed_loss=-1.0, candidates=(0.9, 0.5))
    assert none.threshold is None
    assert len(none.tried) == 1
