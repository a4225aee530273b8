"""The paths up a ladder that are measured."""

from dataclasses import replace

import pytest

from anytime_model.checkpoint.card import is_path
from anytime_model.errors import ConfigError
from anytime_model.evaluation.ladder import measured_paths, paths_of
from anytime_model.networks.hrnet import NetworkConfig
from anytime_model.networks.lite import LiteConfig
from model.factories import tiny_card

LITE, HRNET = LiteConfig("tiny", 5), NetworkConfig("tiny", 5)


@pytest.mark.parametrize("config", [LITE, HRNET], ids=["lite", "hrnet"])
@pytest.mark.parametrize("sides", [1, 2, 3, 4])
def test_every_measured_path_leads_up_the_ladder_to_its_last_rung_and_the_first_makes_all(
    config, sides
):
    paths = measured_paths(config, sides)
    assert paths[0] == tuple(range(1, 4 * sides + 1))
    assert len(set(paths)) == len(paths)
    assert all(is_path(path, config, sides) and path[-1] == 4 * sides for path in paths)


def test_where_no_exit_may_be_left_out_a_size_is_made_up_to_any_of_its_exits():
    assert measured_paths(HRNET, 1) == ((1, 2, 3, 4),)
    assert measured_paths(HRNET, 2) == tuple(
        (*range(1, left + 1), 5, 6, 7, 8) for left in (4, 3, 2, 1)
    )


def test_where_exits_may_be_left_out_few_rungs_may_lead_to_the_last():
    paths = measured_paths(LITE, 2)
    assert paths[:4] == measured_paths(HRNET, 2)
    assert set(paths[4:]) == {
        *[(1, 3, 5, 6, 7, 8), (1, 4, 5, 6, 7, 8), (1, 8)],
        *((1, rung, 8) for rung in range(2, 8)),
        *((1, rung, 5, 8) for rung in (2, 3, 4)),
    }


def test_a_ladder_with_too_many_paths_is_refused():
    card = replace(tiny_card(), config=LITE, sides=(32, 64, 96, 128))
    assert len(paths_of(card)) > 150
    with pytest.raises(ConfigError, match="5 sizes"):
        paths_of(replace(card, sides=(32, 64, 96, 128, 160)))
