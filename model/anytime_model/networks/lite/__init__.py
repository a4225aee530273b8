"""The family `lite`: EfficientNet-Lite with an exit after strides 8, 16, 16 and 32."""

from anytime_model.networks.base import Family
from anytime_model.networks.lite.anytime import LiteNetwork
from anytime_model.networks.lite.config import LiteConfig
from anytime_model.networks.lite.imagenet import load_imagenet

FAMILY = Family(build=LiteNetwork, read=LiteConfig.from_entries, pretrain=load_imagenet)

__all__ = ["FAMILY", "LiteConfig", "LiteNetwork", "load_imagenet"]
