"""Depthwise convolutions, and windows that begin where TensorFlow's "same" padding has them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anytime_model.engines.native.lowering.builder import Builder
from anytime_model.engines.native.memory import PlanMaker
from anytime_model.kernels.handles import ModelHandle
from anytime_model.kernels.library import Activation, KernelError, Kind, Storage, Where, load
from model.comparing import first_map, native_isas, sampled

ISAS = native_isas()
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")
OUTPUTS = 3


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def program(first, depthwise, last, *, stride, fused=False):
    """The image halved by a 3x3 convolution, a depthwise one with ReLU6, a 1x1 one to the map."""
    builder = Builder(OUTPUTS, 3)
    channels = len(first)
    steps = [(first, 2, {"before": 0}), (depthwise, stride, {"depthwise": True})]
    if stride == 1:  # halve first: the map is at a quarter of the resolution
        steps.insert(1, (torch.eye(channels)[:, :, None, None], 2, {"before": 0}))
    x = builder.image
    for weights, halves, options in steps:
        local = fused and "depthwise" in options
        out = builder.buffer(
            x.level + halves - 1, channels, storage=Storage.LOCAL if local else None
        )
        index = builder.weights(weights, halves, **options)
        activation = Activation.RELU6 if "depthwise" in options else Activation.NONE
        builder.emit(
            *(Kind.CONV, out, Where.EVERYWHERE),
            sources=(x.slot,),
            conv=index,
            activation=activation,
            fused=local,
        )
        x = out
    index = builder.weights(last)
    builder.emit(Kind.CONV, builder.map, Where.EVERYWHERE, sources=(x.slot,), conv=index)
    builder.program.ends.append(len(builder.program.operations))
    return builder.program


@built
@pytest.mark.parametrize(
    ("isa", "kernel", "stride", "channels", "fused"),
    sampled(ISAS, [1, 3, 5, 7], [1, 2], [2, 16, 24, 40], [False, True], rounds=6),
)
def test_a_depthwise_convolution_agrees_with_torch(isa, kernel, stride, channels, fused):
    if kernel < stride:
        kernel = 3
    first, last = random(channels, 3, 3, 3), random(OUTPUTS, channels, 1, 1, seed=1)
    weights, image = random(channels, 1, kernel, kernel, seed=2), random(3, 64, 96, seed=3)
    made = program(first, weights, last, stride=stride, fused=fused)
    plan = PlanMaker(load(), isa, made).make((64, 96))
    found = first_map(plan._handle, image.numpy())
    x = F.conv2d(F.pad(image[None], (0, 1, 0, 1)), first, stride=2)
    if stride == 1:
        x = x[..., ::2, ::2]
    before = (kernel - stride) // 2
    x = F.pad(x, (before, kernel - stride - before) * 2)
    x = F.conv2d(x, weights, stride=stride, groups=channels).clamp(0, 6)
    expected = F.conv2d(x, last)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@built
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (9, 1), (1, 2), (3, 3), (3, 0)], ids=str)
def test_other_depthwise_convolutions_are_refused(kernel, stride):
    with pytest.raises(KernelError, match="1x1, 3x3, 5x5 or 7x7, of stride 1 or 2"):
        ModelHandle(load(), ISAS[0]).add_depthwise(
            np.zeros((8, 1, kernel, kernel), np.float32), stride
        )


@built
@pytest.mark.parametrize(("kernel", "stride", "before"), [(3, 1, 0), (3, 2, 2), (1, 1, 1)])
def test_windows_beyond_the_border_are_refused(kernel, stride, before):
    with pytest.raises(KernelError, match="one pixel beyond the border"):
        ModelHandle(load(), ISAS[0]).add_conv(
            np.zeros((8, 8, kernel, kernel), np.float32), stride, before=before
        )
