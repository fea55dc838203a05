"""MobileOne: a classifier of depthwise and pointwise blocks that become plain convolutions."""

from dl_techniques.models.vision.mobile_one.config import MobileOneConfig
from dl_techniques.models.vision.mobile_one.model import MobileOne, MobileOneStage

__all__ = ["MobileOne", "MobileOneConfig", "MobileOneStage"]
