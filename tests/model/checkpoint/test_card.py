"""A card says how its model is to be run."""

from dataclasses import replace

from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.confidence import MaximumProbability
from model.factories import save_tiny, tiny_card


def test_a_card_says_how_the_model_is_to_be_run(tmp_path):
    save_tiny(tmp_path)
    card = read_manifest(tmp_path)["tiny"]
    assert card.criteria() == (*[MaximumProbability(0.6)] * 3, None)
    assert card.task.name == "segmentation"


def test_a_card_without_masking_masks_nothing():
    assert replace(tiny_card(), masking=None).criteria() == (None,) * 4
