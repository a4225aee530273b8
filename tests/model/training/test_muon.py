"""Muon makes matrices orthogonal, and descends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from anytime_model.training.muon import Muon, orthogonal


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), seed=st.integers(0, 1000))
def test_an_orthogonalised_matrix_has_singular_values_near_one(
    rows: int, columns: int, seed: int
) -> None:
    q = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, _, v = torch.linalg.svd(q, full_matrices=False)
    values = torch.linspace(0.5, 1.0, min(rows, columns))
    singular = torch.linalg.svdvals(orthogonal(u @ torch.diag(values) @ v))
    assert singular.min() > 0.5
    assert singular.max() < 1.4


def test_muon_descends_and_refuses_a_closure() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, bias=False)
    x, y = torch.randn(8, 4, 6, 6), torch.randn(8, 6, 4, 4)
    optimiser = Muon(list(layer.parameters()), lr=0.02)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(layer(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    with pytest.raises(NotImplementedError, match="no closure"):
        optimiser.step(lambda: 0.0)
