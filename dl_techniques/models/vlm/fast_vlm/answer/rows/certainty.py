"""How probable it is that an answer is right.

The product of the probabilities of an answer's tokens is what the model itself gives that answer;
a temperature, fitted on answers known to be right or wrong, makes a calibrated number of it. An
encoder that knows better - it has calibrated probabilities of its own for what is on a picture -
says so by a method, and is asked first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from dl_techniques.errors import SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import TokenLogprob
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import as_number


@runtime_checkable
class KnowsItsCertainty(Protocol):
    """A vision encoder with calibrated probabilities of its own, such as tags of a picture.

    Example:
        >>> class Tagger:
        ...     def answer_certainty(self, question, answer, pictures):
        ...         return {"a cat": 0.8}.get(answer)
        >>> isinstance(Tagger(), KnowsItsCertainty)
        True
    """

    def answer_certainty(self, question: str, answer: str, pictures: np.ndarray) -> float | None:
        """The probability that an answer is right.

        Args:
            question: the last message of the user.
            answer: the model's text.
            pictures: float[N, S, S, 3], as the encoder takes them; N may be 0.

        Returns:
            A number in [0, 1], or None where the encoder cannot tell: then the probabilities of
            the answer's tokens are taken.
        """


def certainty_of(logprobs: Sequence[TokenLogprob], temperature: float = 1.0) -> float:
    """The certainty of an answer, from the log-probabilities of its tokens.

    Args:
        logprobs: one a token, the one that ended it included.
        temperature: above 1 where answers are right more often than the product says.

    Returns:
        A number in [0, 1]: the product of the tokens' probabilities to the power `1 / temperature`.
    """
    return float(np.exp(sum(known.logprob for known in logprobs) / temperature))


def check_divisor(temperature: float) -> float:
    """A temperature that can divide, as a float.

    Raises:
        SamplingError: it is no finite number above 0.
    """
    value = as_number(temperature)
    if not 0.0 < value < math.inf:
        raise SamplingError(
            f"certainty_temperature must be a finite number above 0, got {temperature!r:.100}"
        )
    return value
