"""Beam search over the same phases as every other way of generating.

Every prompt keeps its `num_beams` best continuations. A beam that wrote a stop token, or used up
its length, is finished: it keeps its score and competes on. A prompt is done when all its beams
are, whatever the other prompts of the batch do.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops

from dl_techniques.models.vlm.fast_vlm.answer.finite import non_finite_error
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState, Phases
from dl_techniques.models.vlm.fast_vlm.answer.sampling import divided
from dl_techniques.typing import Tensor

IMPOSSIBLE = -1e9


def beam_search(
    phases: Phases,
    logits: Tensor,
    state: DecodeState,
    sampler: keras_hub.samplers.BeamSampler,
    stop_ids: Collection[int],
    limits: np.ndarray,
    features: Tensor | None = None,
) -> list[list[int]]:
    """The most probable continuation found for every prompt.

    Args:
        phases: The model's phases.
        logits: float[B, vocabulary] after the prompts.
        state: The state after the prompts. Consumed.
        sampler: Says how many beams, and the temperature.
        stop_ids: Tokens that end an answer.
        limits: int[B]. Most new tokens of every prompt.
        features: float[B, M, D] of the pictures read with the prompts, or None.

    Returns:
        B lists of tokens; a stop token that was written is included.

    Raises:
        NonFiniteError: logits of a beam that is not finished are NaN or infinite.
    """
    beams = int(sampler.num_beams)
    prompts = len(limits)
    select = phases.functions.get(
        ("beams", beams, sampler.temperature), _select_function(sampler, beams)
    )
    logits = ops.repeat(logits, beams, axis=0)
    state = phases.repeat_rows(state, beams)
    # All beams of a prompt are equal at first: only one of them may be extended.
    scores = np.tile([0.0] + [IMPOSSIBLE] * (beams - 1), (prompts, 1)).astype("float32")
    done = np.zeros((prompts, beams), bool)
    written: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in range(prompts)]
    for step in itertools.count():
        chosen = select(logits, scores, done)
        scores, parents, tokens, bad = (keras.ops.convert_to_numpy(x) for x in chosen)
        if bad.any():
            raise non_finite_error(phases.backbone, bad, step, features)
        features = None
        done = np.take_along_axis(done, parents, axis=1)
        written = _continue(written, parents, tokens, done)
        lengths = np.array([[len(beam) for beam in row] for row in written])
        done = done | np.isin(tokens, list(stop_ids)) | (lengths >= limits[:, None])
        if done.all():
            return [row[int(np.argmax(s))] for row, s in zip(written, scores, strict=True)]
        rows = (parents + np.arange(prompts)[:, None] * beams).reshape(-1)
        state = phases.take_rows(state, rows)
        logits, state = phases.decode_step(tokens.reshape(-1).astype("int32"), state)
    raise AssertionError("unreachable: every prompt has a limit")


def _continue(
    written: list[list[list[int]]], parents: np.ndarray, tokens: np.ndarray, done: np.ndarray
) -> list[list[list[int]]]:
    """The beams after a step: their parents' tokens, and the new one unless finished."""
    return [
        [
            row[parent] if finished else [*row[parent], int(token)]
            for parent, token, finished in zip(p, t, d, strict=True)
        ]
        for row, p, t, d in zip(written, parents, tokens, done, strict=True)
    ]


def _select_function(sampler: keras_hub.samplers.BeamSampler, beams: int) -> Any:
    """(logits[B*k, V], scores[B, k], done[B, k]) -> scores, parents and tokens, each [B, k].

    And bool[B]: whether logits of a beam that goes on are not finite.
    """

    def select(
        logits: Tensor, scores: Tensor, done: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = logits.shape[-1]
        finite = ops.reshape(ops.all(ops.isfinite(logits), axis=-1), (-1, beams))
        scaled, fits, best = divided(logits, sampler)
        alone = ops.where(best > 0, 0.0, IMPOSSIBLE)
        steps = ops.where(fits, ops.log_softmax(scaled, axis=-1), alone)
        steps = ops.reshape(steps, (-1, beams, size))
        # A finished beam has one continuation: itself, at no cost.
        itself = ops.where(ops.arange(size) == 0, 0.0, IMPOSSIBLE)[None, None]
        steps = ops.where(done[:, :, None], itself, steps)
        totals = ops.reshape(scores[:, :, None] + steps, (-1, beams * size))
        values, places = ops.top_k(totals, k=beams)
        places = ops.cast(places, "int32")
        bad = ops.any(ops.logical_not(ops.logical_or(finite, done)), axis=-1)
        return values, places // size, places % size, bad

    return select
