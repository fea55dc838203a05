"""Numbers that are not finite are an error that names the part which made them first.

Whether logits are finite is asked in the function that chooses the token, and told by a token
that no vocabulary has: the host reads the tokens anyway, so nothing waits for the answer. Where
it all began is looked for only when something is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from dl_techniques.errors import NonFiniteError
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.typing import Tensor

NOT_FINITE = -2


def mark_rows(tokens: Tensor, logits: Tensor) -> Tensor:
    """Tokens int32[B] with `NOT_FINITE` where logits float[B, vocabulary] are NaN or infinite."""
    return ops.where(ops.all(ops.isfinite(logits), axis=-1), tokens, NOT_FINITE)


def non_finite_error(
    backbone: FastVLMBackbone, bad: np.ndarray, step: int, features: Tensor | None
) -> NonFiniteError:
    """The error for logits that are not finite.

    Args:
        backbone: The model.
        bad: bool[B]. The prompts whose logits are not finite.
        step: 0 for the logits after the prompts, n for those after the n-th token.
        features: float[B, M, D] of the pictures that were read with the prompts, or None.
    """
    row = int(np.flatnonzero(bad)[0])
    weights, part = backbone.text_backbone.weights, f"logits of step {step}"
    if step == 0:
        part = "logits of prefill"
        if features is not None and features.shape[1] and not _all_finite(features[row]):
            weights, part = backbone.image_embedding.weights, "picture features"
    prompt = f"prompt {row}: " if len(bad) > 1 else ""
    return NonFiniteError(
        f"{prompt}the {part} are not finite (NaN or infinite), so there is no answer; "
        f"{_cause(weights, backbone)}"
    )


def _cause(weights: Iterable[keras.Variable], backbone: FastVLMBackbone) -> str:
    """What to do: weights can be named, an overflow cannot."""
    for weight in weights:
        if keras.backend.is_float_dtype(weight.dtype) and not _all_finite(weight.value):
            return f"the weight '{weight.path}' is not: load or train the model again"
    return (
        "all weights of this part are, so its numbers overflow or its inputs are not: check the "
        f"pixels, and load the model as float32 (it computes in {backbone.compute_dtype})"
    )


def _all_finite(values: Tensor) -> bool:
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(values))))
