"""EfficientNet-Lite: a classifier of inverted residual blocks without squeeze-and-excitation."""

from dl_techniques.models.vision.efficientnet_lite.config import EfficientNetLiteConfig
from dl_techniques.models.vision.efficientnet_lite.model import (
    EfficientNetLite,
    InvertedResidualStage,
)

__all__ = ["EfficientNetLite", "EfficientNetLiteConfig", "InvertedResidualStage"]
