"""How one answer is to be written: everything that may differ between the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import keras_hub
from keras_hub.samplers import Sampler

from dl_techniques.errors import SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import (
    GREEDY_BELOW,
    as_number,
    check_temperature,
    is_greedy,
    whole,
)
from dl_techniques.text import check_text


class RowOptions(TypedDict, total=False):
    """The keywords of `generate`, `stream` and `Chat` that `RowSettings` explains."""

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    no_repeat_ngram_size: int
    presence_penalty: float
    frequency_penalty: float
    min_new_tokens: int
    stop: str | Sequence[str]


@dataclass(frozen=True)
class RowSettings:
    """How one answer is written.

    The penalties are those of `transformers` (over prompt and answer) and of OpenAI (over the
    answer), with one difference: the tokens that end an answer are never penalized or forbidden,
    though every prompt holds some of them.

    Args:
        temperature: divisor of the logits; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; None for all.
        top_p: draw among the fewest tokens that have this probability together; None for all.
        seed: of the draws, a whole number of at least 0; None for another answer every time.
        repetition_penalty: above 1, positive logits of tokens that were seen are divided by it
            and negative ones multiplied.
        no_repeat_ngram_size: no run of so many tokens is written that was seen before; 0 for none.
        presence_penalty: taken from the logits of tokens that the answer has.
        frequency_penalty: taken from them as often as the answer has them.
        min_new_tokens: before so many tokens, nothing ends the answer.
        max_new_tokens: longest answer; None for what the model and its context allow.
        stop: texts that end the answer and are no part of it; one or several.
        logprobs: how many of the likeliest tokens to keep the log-probabilities of, beside that
            of the chosen one; None to keep none.

    Raises:
        SamplingError: a number that means nothing; says which, what it is and what it may be.
        PromptError: a stop text that is no text.

    Example:
        >>> RowSettings(stop="\\n\\n", repetition_penalty=1.2).stop
        ('\\n\\n',)
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_new_tokens: int = 0
    max_new_tokens: int | None = None
    stop: str | Sequence[str] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        for name in ("top_k", "max_new_tokens"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, " or None")
        for name in ("seed", "logprobs"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, " or None", least=0)
        for name in ("no_repeat_ngram_size", "min_new_tokens"):
            whole(getattr(self, name), name, least=0)
        if self.top_p is not None and not 0.0 < as_number(self.top_p) <= 1.0:
            raise _meaningless("top_p", "above 0 and at most 1, or None", self.top_p)
        if not 0.0 < as_number(self.repetition_penalty) < math.inf:
            raise _meaningless("repetition_penalty", "a number above 0", self.repetition_penalty)
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(as_number(getattr(self, name))):
                raise _meaningless(name, "a finite number", getattr(self, name))
        object.__setattr__(self, "stop", _stop_texts(self.stop))

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature < GREEDY_BELOW

    @property
    def changes_logits(self) -> bool:
        """Whether a penalty or a least length moves the logits before the choice."""
        neutral = (1.0, 0, 0.0, 0.0, 0)
        return neutral != (
            self.repetition_penalty,
            self.no_repeat_ngram_size,
            self.presence_penalty,
            self.frequency_penalty,
            self.min_new_tokens,
        )

    @property
    def on_the_host(self) -> bool:
        """Whether the choice needs more than a compiled sampler: its past, or probabilities."""
        return self.changes_logits or self.logprobs is not None


def settings_of(sampler: Sampler) -> dict[str, Any]:
    """The fields of `RowSettings` that a KerasHub sampler stands for.

    Raises:
        SamplingError: beam search, or a sampler with a way of its own.

    Example:
        >>> settings_of(keras_hub.samplers.TopKSampler(k=5, temperature=0.7))
        {'temperature': 0.7, 'top_k': 5, 'top_p': None}
    """
    samplers = keras_hub.samplers
    if type(sampler) not in (
        samplers.GreedySampler,
        samplers.RandomSampler,
        samplers.TopKSampler,
        samplers.TopPSampler,
    ):
        raise SamplingError(
            f"{type(sampler).__name__} goes with none of {list(RowOptions.__annotations__)}, log-"
            "probabilities or a certainty; use greedy, random, top_k or top_p"
        )
    if is_greedy(sampler):
        return {"temperature": 0.0, "top_k": None, "top_p": None}
    return {
        "temperature": float(sampler.temperature),
        "top_k": getattr(sampler, "k", None),
        "top_p": getattr(sampler, "p", None),
    }


def sampler_of(settings: RowSettings, vocabulary: int | None = None) -> Sampler:
    """The KerasHub sampler that draws as the settings say; the inverse of `settings_of`.

    Args:
        settings: of which temperature, top_k, top_p and seed are looked at.
        vocabulary: number of tokens; a larger top_k is all of them.

    Example:
        >>> type(sampler_of(RowSettings(temperature=1.0, top_p=0.9))).__name__
        'TopPSampler'
    """
    samplers = keras_hub.samplers
    if settings.greedy:
        return samplers.GreedySampler()
    draw = {"temperature": settings.temperature, "seed": settings.seed}
    k = settings.top_k
    if k is not None and vocabulary is not None:
        k = None if k >= vocabulary else k
    if settings.top_p is not None:
        return samplers.TopPSampler(p=settings.top_p, k=k, **draw)
    return samplers.RandomSampler(**draw) if k is None else samplers.TopKSampler(k=k, **draw)


def check_names(options: Any) -> None:
    """Refuses keywords that are no fields of `RowSettings`.

    Raises:
        TypeError: as Python's own for an unknown keyword; the known ones are given.
    """
    known = [field.name for field in fields(RowSettings)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"unknown keyword(s) {unknown}; known are {known}")


def _stop_texts(given: Any) -> tuple[str, ...]:
    """One or several texts, none of them empty."""
    texts = [given] if isinstance(given, (str, bytes)) else given
    if not isinstance(texts, Sequence):
        raise _meaningless("stop", "a text or a list of texts", given)
    for i, text in enumerate(texts):
        if not check_text(text, f"stop text {i}"):
            raise _meaningless(f"stop text {i}", "at least one character", text)
    return tuple(texts)


def _meaningless(what: str, wanted: str, got: Any) -> SamplingError:
    return SamplingError(f"{what} must be {wanted}, got {got!r:.100}")
