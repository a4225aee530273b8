"""Masks of all resolutions, and the convolution that takes them."""

import torch

from anytime_model.networks.hrnet.masking import MaskedConv2d, Masks


def test_training_and_inference_interpolate_alike_and_give_lambda_the_same_gradient():
    layer = MaskedConv2d(3, 4, 3, bias=True).double()
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    masks = Masks.pyramid(torch.rand(1, 1, 9, 9) < 0.5, 1)
    outputs, gradients = [], []
    for training in (True, False):
        layer.train(training)
        y = layer(x, masks)
        outputs.append(y)
        gradients.append(torch.autograd.grad(y.square().sum(), layer.lam)[0])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)


def test_lambda_starts_at_three_and_learns():
    conv = MaskedConv2d(2, 3, 3, bias=False)
    assert conv.lam.item() == 3.0
    conv.lam.data.fill_(1.0)
    active = torch.rand(1, 1, 8, 8) < 0.5
    conv(torch.randn(1, 2, 8, 8), Masks.pyramid(active, 1)).square().sum().backward()
    assert conv.lam.grad.abs() > 0
    assert conv.weight.grad.abs().sum() > 0


def test_a_pyramid_takes_every_second_position():
    active = torch.rand(1, 1, 8, 16) < 0.5
    masks = Masks.pyramid(active, 3)
    assert set(masks.by_size) == {(8, 16), (4, 8), (2, 4)}
    nearest = torch.nn.functional.interpolate(active.float(), size=(2, 4), mode="nearest")
    assert torch.equal(masks.by_size[(2, 4)], nearest.bool())


def test_a_strided_convolution_uses_the_mask_of_its_output():
    conv = MaskedConv2d(1, 1, 3, stride=2, bias=False)
    masks = Masks.pyramid(torch.zeros(1, 1, 8, 8, dtype=torch.bool), 2)
    assert torch.equal(conv(torch.randn(1, 1, 8, 8), masks), torch.zeros(1, 1, 4, 4))
