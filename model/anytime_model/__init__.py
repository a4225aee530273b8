"""Anytime dense prediction: networks with several exits and confidence adaptivity.

A network makes a first map after a part of the computation and a better one at each exit, and
computes no further where the map is already certain (Liu et al., ICLR 2022). In this package FLOPs
are multiply-adds.

The names below are imported when they are first used, since they need PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anytime_model.networks.base import Prior, State, build_network
    from anytime_model.networks.hrnet.anytime import AnytimeNetwork
    from anytime_model.networks.hrnet.config import NetworkConfig

__all__ = ["AnytimeNetwork", "NetworkConfig", "Prior", "State", "build_network"]

_MODULES = {
    "AnytimeNetwork": "anytime_model.networks.hrnet.anytime",
    "NetworkConfig": "anytime_model.networks.hrnet.config",
    "Prior": "anytime_model.networks.base",
    "State": "anytime_model.networks.base",
    "build_network": "anytime_model.networks.base",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
