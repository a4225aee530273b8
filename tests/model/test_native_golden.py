"""The native engine against reference outputs of the published network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anytime_model import agreement
from anytime_model.config import NUM_EXITS, NetworkConfig
from anytime_model.foreign import from_tensors
from anytime_model.masking import Masks
from model.engine_fakes import TOLERANCE, native, native_isas
from model.model_fakes import GOLDEN

ISAS = native_isas()
pytestmark = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")
FILES = sorted(GOLDEN.glob("*.npz"))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_exit_and_mask_agrees_with_the_reference(path, isa):
    arrays, meta = agreement._read(path)
    config = NetworkConfig(meta["preset"], meta["classes"], exits=meta["exits"])
    tensors = {
        key: torch.from_numpy(agreement._weights(key, tuple(shape), meta["seed"]))
        * agreement._factor(meta, key)
        for key, shape in meta["keys"].items()
    }
    network = from_tensors(tensors, config, path).network.eval()
    card = SimpleNamespace(config=config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    engine = native(SimpleNamespace(network=network, card=card), isa)
    begun = engine.begin_normalised(agreement._image(tuple(meta["input_shape"]), meta["seed"])[0])
    criterion = agreement._criterion(path, meta)
    for exit_ in range(1, NUM_EXITS + 1):
        result = begun.advance(criterion)
        reference = arrays[f"exit{exit_}"][0]
        assert np.abs(result.logits - reference).max() <= TOLERANCE * np.abs(reference).max()
        if criterion is not None and exit_ < NUM_EXITS:
            pyramid = Masks.pyramid(torch.from_numpy(result.active)[None, None], 4)
            assert agreement._differing(arrays, exit_, pyramid) == 0
