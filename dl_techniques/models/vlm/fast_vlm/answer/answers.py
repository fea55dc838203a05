"""A finished answer, what is known about it, and the forms in which it is returned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dl_techniques.models.vlm.fast_vlm.answer.requests import Request, pad_rows
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.rows.certainty import certainty_of
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import TokenLogprob

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Form:
    """What `generate` is to return.

    Attributes:
        strip_prompt: the answer alone, without its prompt.
        logprobs: number of the likeliest tokens at each place; None for no log-probabilities.
        certainty: whether the certainty is asked for.
    """

    strip_prompt: bool = True
    logprobs: int | None = None
    certainty: bool = False

    @property
    def more_than_text(self) -> bool:
        """Whether an `Answer` is returned."""
        return self.logprobs is not None or self.certainty

    @property
    def options(self) -> dict[str, Any]:
        """The fields of `RowSettings` that it needs."""
        if self.logprobs is not None:
            return {"logprobs": self.logprobs}
        return {"logprobs": 0} if self.certainty else {}


@dataclass(frozen=True)
class Answer:
    """What `generate` returns where more than the text is asked for.

    Attributes:
        text: the answer.
        token_ids: its tokens, those that ended it included.
        finish_reason: "stop" for a stop token or a stop text, "length" where the room was used up.
        logprobs: one `TokenLogprob` for each of `token_ids`.
        certainty: the probability that the answer is right, where it was asked for.

    Example:
        >>> answer = model.generate(question, return_logprobs=2)  # doctest: +SKIP
        >>> answer.text, answer.logprobs[0].logprob  # doctest: +SKIP
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[TokenLogprob]
    certainty: float | None = None


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


def arrays_of(
    request: Request,
    answers: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[TokenLogprob]],
    form: Form,
    temperature: float,
) -> dict[str, np.ndarray]:
    """A batch as padded arrays, where there is no preprocessor to make texts.

    Args:
        request: what was asked.
        answers: tokens of every row.
        logprobs: of every row, one a token.
        form: what to return.
        temperature: of the certainty.
    """
    rows = answers if form.strip_prompt else request.with_prompts(answers)
    arrays = pad_rows(rows, request.length)
    if form.logprobs is not None:
        starts = [len(row) - len(answer) for row, answer in zip(rows, answers, strict=True)]
        arrays |= logprob_arrays(logprobs, starts, request.length, form.logprobs)
    if form.certainty:
        arrays["certainty"] = np.array([certainty_of(r, temperature) for r in logprobs], "float32")
    return arrays


def answers_of(
    request: Request,
    rows: Sequence[list[int]],
    written: Sequence[str],
    texts: Sequence[AnswerText | None],
    logprobs: Sequence[list[TokenLogprob]],
    certainties: Sequence[float | None],
) -> list[Answer]:
    """A batch as `Answer`s.

    Args:
        request: what was asked.
        rows: tokens of every answer.
        written: their texts.
        texts: what watched for stop texts, where there were some.
        logprobs: of every answer, one a token.
        certainties: of every answer, or None.
    """
    stopped = [None if text is None else text.stopped for text in texts]
    reasons = [
        finish_reason(row, request.stop_ids, stop) for row, stop in zip(rows, stopped, strict=True)
    ]
    columns = zip(written, rows, reasons, logprobs, certainties, strict=True)
    return [Answer(*columns_of_one) for columns_of_one in columns]
