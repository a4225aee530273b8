"""The layers that encoder and exits are made of: normalised convolutions, inverted residuals."""

import torch.nn.functional as F
from torch import Tensor, nn

NORM_MOMENTUM = 0.01
NORM_EPSILON = 1e-3
"""That the ImageNet weights were trained with."""


class NormedConv(nn.Module):
    """Convolution, batch normalisation and, if wanted, ReLU6.

    A stride of 2 pads the right and the bottom more than the left and the top, as TensorFlow's
    "same" does, with which the ImageNet weights were trained; sides must be even then.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        first = (kernel - stride) // 2
        self._padding = (first, kernel - stride - first) * 2 if stride > 1 else ()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=0 if stride > 1 else kernel // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        if self._padding:
            x = F.pad(x, self._padding)
        y: Tensor = self.norm(self.conv(x))
        return F.relu6(y) if self.relu else y


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise one, 1x1 to few; a shortcut where shapes allow.

    Sandler et al., MobileNetV2, CVPR 2018; without squeeze-and-excitation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inside = expansion * in_channels
        self.expand = NormedConv(in_channels, inside) if expansion > 1 else nn.Identity()
        self.depthwise = NormedConv(inside, inside, kernel, stride=stride, groups=inside)
        self.project = NormedConv(inside, out_channels, relu=False)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class Separable(nn.Module):
    """A depthwise convolution and a 1x1 one, both normalised, as wide as its input."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = NormedConv(channels, channels, kernel, groups=channels, relu=False)
        self.mix = NormedConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y: Tensor = self.mix(self.depthwise(x))
        return y
