"""The layers that backbone and exits are made of: normalised convolutions and residual blocks.

Every `forward` takes the run's masks as an argument. `masks=None` means everything is computed;
only layers built with `maskable=True` may be given anything else.
"""

from torch import Tensor, nn

from anytime_model.networks.hrnet.masking import MaskedConv2d, Masks

NORM_MOMENTUM = 0.01


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    bias: bool = False,
    maskable: bool,
) -> nn.Conv2d:
    """A same-padded convolution, maskable or plain."""
    if maskable:
        return MaskedConv2d(in_channels, out_channels, kernel, stride=stride, bias=bias)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, if wanted, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        relu: bool = True,
        bias: bool = False,
        maskable: bool,
    ) -> None:
        super().__init__()
        self.conv = conv(
            in_channels, out_channels, kernel, stride=stride, bias=bias, maskable=maskable
        )
        self.norm = nn.BatchNorm2d(out_channels, momentum=NORM_MOMENTUM)
        self.relu = relu

    def forward(self, x: Tensor, masks: Masks | None = None) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H', W')."""
        y: Tensor = self.norm(self.conv(x) if masks is None else self.conv(x, masks))
        return y.relu() if self.relu else y


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; all branches of stages 2 to 4 are chains of these."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, maskable=True)
        self.conv2 = ConvNorm(channels, channels, 3, relu=False, maskable=True)

    def forward(self, x: Tensor, masks: Masks | None = None) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y: Tensor = self.conv2(self.conv1(x, masks), masks)
        return (y + x).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut, four times as wide outside.

    Stage 1 is a chain of these, and is never masked.
    """

    EXPANSION = 4

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        out_channels = self.EXPANSION * channels
        self.conv1 = ConvNorm(in_channels, channels, 1, maskable=False)
        self.conv2 = ConvNorm(channels, channels, 3, maskable=False)
        self.conv3 = ConvNorm(channels, out_channels, 1, relu=False, maskable=False)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else ConvNorm(in_channels, out_channels, 1, relu=False, maskable=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, 4 C, H, W)."""
        y: Tensor = self.conv3(self.conv2(self.conv1(x)))
        shortcut: Tensor = self.shortcut(x)
        return (y + shortcut).relu()
