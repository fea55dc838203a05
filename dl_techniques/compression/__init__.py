"""Smaller and faster models: quantization, pruning, distillation.

Example:
    >>> from dl_techniques import FastVLM
    >>> from dl_techniques.compression import prune_channels
    >>> prune_channels(FastVLM.from_variant("tiny"), 0.5).config.embed_dims
    (16, 32, 64)
"""

from __future__ import annotations

import dl_techniques.layers  # noqa: F401 - chooses the backend before a module below imports Keras
from dl_techniques.compression.channel_importance import channel_importance
from dl_techniques.compression.channel_pruning import prune_channels
from dl_techniques.compression.distillation import distiller
from dl_techniques.compression.magnitude_pruning import MagnitudePruning, sparsity_report
from dl_techniques.compression.optimization.optimizing import OptimizeReport, optimize
from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.compression.optimization.target import recipe_for_size
from dl_techniques.compression.pruning_gradual import prune_gradually
from dl_techniques.compression.quantization_aware import calibrate, quantization_aware
from dl_techniques.compression.static_int8 import quantize_static
from dl_techniques.compression.weight_only import quantize_weights

__all__ = [
    "MagnitudePruning",
    "OptimizeReport",
    "Recipe",
    "calibrate",
    "channel_importance",
    "distiller",
    "optimize",
    "prune_channels",
    "prune_gradually",
    "quantization_aware",
    "quantize_static",
    "quantize_weights",
    "recipe_for_size",
    "sparsity_report",
]
