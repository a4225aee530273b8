"""The native engine against reference outputs of the published network."""

from types import SimpleNamespace

import pytest
import torch

from anytime_model.parity import load_reference
from model.comparing import native, native_isas
from model.factories import GOLDEN

ISAS = native_isas()
pytestmark = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")
FILES = sorted(GOLDEN.glob("*.npz"))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_exit_and_mask_agrees_with_the_reference(path, isa):
    reference = load_reference(path)
    config = reference.network.config
    card = SimpleNamespace(config=config, task=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    card.task = SimpleNamespace(probabilistic=True)
    engine = native(SimpleNamespace(network=reference.network, card=card), isa)
    begun = engine.begin_normalised(reference.image[0].numpy())
    for exit_ in range(1, config.num_exits + 1):
        result = begun.advance(reference.criterion)
        active = torch.from_numpy(result.active)[None, None]
        assert reference.compare(exit_, result.logits, active).agrees
