"""FastVLM, the hybrid convolution-attention backbone, and its parts."""

from dl_techniques.models.vision.fast_vlm.components import Attention, AttentionBlock, Stage
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vision.fast_vlm.model import FastVLM

__all__ = ["Attention", "AttentionBlock", "FastVLM", "FastVLMConfig", "Stage"]
