"""The family `hrnet`: HRNet v2 with an exit after each of its stages (Liu et al., ICLR 2022)."""

from anytime_model.networks.base import Family
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig

FAMILY = Family(build=AnytimeNetwork, read=NetworkConfig.from_entries)

__all__ = ["FAMILY", "AnytimeNetwork", "NetworkConfig"]
