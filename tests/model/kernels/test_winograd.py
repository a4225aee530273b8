"""3x3 convolutions by Winograd F(4,3): the same sums from half of the products."""

import numpy as np
import pytest

from anytime_model.kernels.handles import ModelHandle
from anytime_model.kernels.library import KernelError, load
from model.comparing import first_map, native_isas
from model.factories import plan_maker

ISAS = native_isas()
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")


@built
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(64, 96), (96, 1056)], ids=str)
def test_winograd_agrees_with_nine_products(isa, size):
    image = np.random.default_rng(3).standard_normal((3, *size), np.float32)
    found = first_map(plan_maker(isa)(size=size), image)
    expected = first_map(plan_maker(isa, winograd=False)(size=size), image)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert (found != expected).any()  # it was another way


@built
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2)])
def test_only_3x3_convolutions_of_stride_1_can_be_dense(kernel, stride):
    weights = np.zeros((8, 8, kernel, kernel), np.float32)
    with pytest.raises(KernelError, match="3x3"):
        ModelHandle(load(), ISAS[0]).add_conv(weights, stride, dense=True)


@built
def test_a_dense_convolution_alone_is_refused():
    def alone(_, ops):
        for op in ops:
            op.fused = op.tiled = 0

    with pytest.raises(KernelError, match="dense convolution"):
        plan_maker(ISAS[0])(alone)
