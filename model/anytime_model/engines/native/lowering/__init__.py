"""The lowering of a network to a flat program: operations on numbered buffers, without sizes.

There are three operations: a convolution at listed positions, the interpolation that follows a
masked one, and the weighted sum of maps of several resolutions. Batch normalisation is folded into
the weights. Each family has a module of its own here.
"""

import torch

from anytime_model.engines.native.lowering.hrnet import HrnetLowering
from anytime_model.engines.native.lowering.lite import LiteLowering
from anytime_model.engines.native.program import Program
from anytime_model.errors import FamilyError
from anytime_model.networks.base import Network
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.lite.anytime import LiteNetwork


def lower(network: Network, *, image_channels: int = 3, concatenate: bool = False) -> Program:
    """The program of a network in evaluation mode.

    Args:
        network: an HRNet or a lite network of any configuration.
        image_channels: 3, or 4 for arithmetic that takes input channels in pairs.
        concatenate: see `HrnetLowering`; for a program that is to be quantised.

    Raises:
        FamilyError: the network's family has no lowering.
    """
    with torch.no_grad():
        match network:
            case AnytimeNetwork():
                return HrnetLowering(network, image_channels, concatenate=concatenate).program
            case LiteNetwork():
                return LiteLowering(network, image_channels).program
    raise FamilyError(
        f"the native engine has no program for the family {network.config.family!r}. "
        "Choose the engine openvino or torch, or auto."
    )
