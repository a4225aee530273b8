"""Anytime dense prediction: a multi-exit HRNet with confidence adaptivity (Liu et al., ICLR 2022).

A first map after a few per cent of the computation, a better one at each exit, and no work spent
where the map is already certain. In this package FLOPs are multiply-adds, once and for all.
"""

from anytime_model.anytime import AnytimeNetwork, State
from anytime_model.config import NetworkConfig

__all__ = ["AnytimeNetwork", "NetworkConfig", "State"]
