"""The family `mdeq`: multiscale deep equilibrium models, with an exit after some iterations each.

Bai, Koltun, Kolter, "Multiscale Deep Equilibrium Models", NeurIPS 2020; decoded after 4, 6, 8 and
10 iterations it is the ADP-C paper's first baseline (section 3, appendix F).
"""

from anytime_model.networks.base import Family
from anytime_model.networks.mdeq.anytime import MdeqNetwork
from anytime_model.networks.mdeq.config import MdeqConfig

FAMILY = Family(build=MdeqNetwork, read=MdeqConfig.from_entries)

__all__ = ["FAMILY", "MdeqConfig", "MdeqNetwork"]
