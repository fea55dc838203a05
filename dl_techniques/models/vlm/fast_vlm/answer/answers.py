"""A finished answer and what is known about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import TokenLogprob

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Answer:
    """What `generate` returns where more than the text is asked for.

    Attributes:
        text: the answer.
        token_ids: its tokens, those that ended it included.
        finish_reason: "stop" for a stop token or a stop text, "length" where the room was used up.
        logprobs: one `TokenLogprob` for each of `token_ids`.

    Example:
        >>> answer = model.generate(question, return_logprobs=2)  # doctest: +SKIP
        >>> answer.text, answer.logprobs[0].logprob  # doctest: +SKIP
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[TokenLogprob]


def finish_reason(
    token_ids: Sequence[int], stop_ids: Collection[int], stopped: str | None
) -> FinishReason:
    """Why an answer ended.

    Args:
        token_ids: its tokens.
        stop_ids: tokens that end an answer.
        stopped: the stop text that ended it, or None.

    Example:
        >>> finish_reason([5, 2], [2], None), finish_reason([5, 7], [2], None)
        ('stop', 'length')
    """
    ended = bool(token_ids) and token_ids[-1] in stop_ids
    return "stop" if ended or stopped is not None else "length"


def logprob_arrays(
    rows: Sequence[Sequence[TokenLogprob]], starts: Sequence[int], length: int, top: int
) -> dict[str, np.ndarray]:
    """Log-probabilities of a batch, padded like its tokens.

    Args:
        rows: of every answer, one a token.
        starts: where each answer begins in its row.
        length: L, of the padded rows.
        top: k, how many of the likeliest tokens each has; the vocabulary may be smaller.

    Returns:
        `logprobs` float32[B, L], `top_tokens` int32[B, L, k] and `top_logprobs` float32[B, L, k];
        0 at prompts and padding.
    """
    k = min([top, *(len(known.top) for row in rows for known in row)])
    chosen = np.zeros((len(rows), length), "float32")
    tokens = np.zeros((len(rows), length, k), "int32")
    likeliest = np.zeros((len(rows), length, k), "float32")
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        for at, known in enumerate(row, start):
            chosen[i, at] = known.logprob
            tokens[i, at] = [token for token, _ in known.top]
            likeliest[i, at] = [logprob for _, logprob in known.top]
    return {"logprobs": chosen, "top_tokens": tokens, "top_logprobs": likeliest}
