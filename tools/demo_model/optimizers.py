"""The optimizers that the recipe's stages can be run with."""

from __future__ import annotations

from typing import Any

import keras

KINDS = ("adamw", "muon")
NOT_DECAYED = ["bias", "beta", "gamma", "scale"]


def build_optimizer(
    kind: str,
    rate: Any,
    beta_2: float = 0.999,
    heads: tuple[str, ...] = (),
) -> keras.optimizers.Optimizer:
    """An optimizer with clipped gradients, weight decay and moving averages of the weights.

    Args:
        kind: "adamw", or "muon": matrices move by orthogonalized momentum (Liu et al., "Muon is
            scalable for LLM training", arXiv:2502.16982), everything else as with AdamW.
        rate: of both.
        beta_2: of AdamW.
        heads: parts of the paths of output layers, which Muon leaves to AdamW.

    Raises:
        ValueError: on another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"optimizer {kind!r} is unknown, expected one of {KINDS}")
    shared = {"global_clipnorm": 1.0, "weight_decay": 0.02, "use_ema": True, "ema_momentum": 0.99}
    if kind == "muon":
        optimizer = keras.optimizers.Muon(
            rate, adam_beta_2=beta_2, adam_weight_decay=0.02, exclude_layers=list(heads), **shared
        )
    else:
        optimizer = keras.optimizers.AdamW(rate, beta_2=beta_2, **shared)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
