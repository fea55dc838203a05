"""What a sampler and its seed may be; everything else is one error before the model starts."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Sequence
from typing import Any

import keras_hub
import numpy as np
from keras_hub.samplers import Sampler

from dl_techniques.errors import SamplingError

NAMES = ("greedy", "top_k", "top_p", "random", "beam")
UNABLE = ("contrastive", "speculative")  # KerasHub's that run decoding loops of their own
GREEDY_BELOW = float(np.finfo("float32").tiny)  # some backends flush smaller divisors to zero


def resolve(sampler: Any) -> Sampler:
    """A KerasHub sampler from its name, its config or itself, not yet checked.

    Raises:
        SamplingError: it is none of these.
    """
    if isinstance(sampler, str) and sampler not in (*NAMES, *UNABLE):
        near = difflib.get_close_matches(sampler.lower(), NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SamplingError(f"sampler {sampler!r:.100} is unknown; use one of {list(NAMES)}{hint}")
    if isinstance(sampler, (str, dict)):
        try:
            sampler = keras_hub.samplers.get(sampler)
        except Exception as error:  # Keras raises whatever a wrong config leads to
            reason = " ".join(str(error).split())[:200]
            raise SamplingError(f"no sampler can be made of {sampler!r:.100}: {reason}") from error
    if not isinstance(sampler, Sampler):
        raise SamplingError(
            f"a sampler must be one of {list(NAMES)} or an object of keras_hub.samplers, got "
            f"{sampler!r:.100}"
        )
    return sampler


def check_sampler(sampler: Sampler) -> None:
    """Refuses a sampler that cannot run on the generation phases, or whose numbers mean nothing.

    Raises:
        SamplingError: says which number, what it is and what it may be.
    """
    name = type(sampler).__name__
    if isinstance(sampler, keras_hub.samplers.BeamSampler):
        if sampler.return_all_beams:
            raise SamplingError("generate() returns the best beam; use return_all_beams=False")
        whole(sampler.num_beams, f"num_beams of {name}")
    elif type(sampler).__call__ is not Sampler.__call__:
        raise SamplingError(
            f"{name} runs a decoding loop of its own, which FastVLMCausalLM does not support; use "
            "greedy, top_k, top_p, random, beam, or a Sampler with its own get_next_token()"
        )
    check_temperature(sampler.temperature, f"temperature of {name}")
    if isinstance(sampler, keras_hub.samplers.TopKSampler):
        whole(sampler.k, f"k of {name}")
    if isinstance(sampler, keras_hub.samplers.TopPSampler):
        if not 0.0 < as_number(sampler.p) <= 1.0:
            raise SamplingError(
                f"p of {name} must be above 0 and at most 1, got {sampler.p!r:.100}"
            )
        if sampler.k is not None:
            whole(sampler.k, f"k of {name}", " or None")


def check_temperature(temperature: Any, what: str = "temperature") -> float:
    """A temperature as a float.

    Args:
        temperature: a finite number of at least 0; 0 is greedy.
        what: what the error calls it.

    Raises:
        SamplingError: it is none.
    """
    value = as_number(temperature)
    if not 0.0 <= value < math.inf:
        raise SamplingError(
            f"{what} must be a finite number of at least 0 (0 is greedy), got {temperature!r:.100}"
        )
    return value


def check_seed(seed: Any, rows: int) -> int | list[int] | None:
    """A seed for all rows, or one per row, as plain integers.

    Args:
        seed: a whole number of at least 0, a sequence of these, or None.
        rows: number of prompts.

    Raises:
        SamplingError: a seed is negative or no whole number, or there are not as many as prompts.
    """
    if seed is None:
        return None
    many = isinstance(seed, np.ndarray) and seed.ndim > 0
    if not many and (isinstance(seed, (str, bytes)) or not isinstance(seed, Sequence)):
        return whole(seed, "seed", " or None", least=0)
    if len(seed) != rows:
        raise SamplingError(
            f"{rows} prompts need as many seeds, got {len(seed)}; give one per prompt, or one "
            "number for all"
        )
    return [whole(s, f"seed {i}", least=0) for i, s in enumerate(seed)]


def is_greedy(sampler: Sampler) -> bool:
    """Whether the sampler always takes the likeliest token: so does every one at temperature 0."""
    cold = as_number(sampler.temperature) < GREEDY_BELOW
    return isinstance(sampler, keras_hub.samplers.GreedySampler) or cold


def as_number(value: Any) -> float:
    """A number as a float; NaN, which is in no range, for anything else."""
    if isinstance(value, (str, bytes, bool)):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:
        return math.inf


def whole(value: Any, what: str, otherwise: str = "", least: int = 1) -> int:
    """A whole number of at least `least`."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise SamplingError(
            f"{what} must be a whole number of at least {least}{otherwise}, got {value!r:.100}"
        )
    return number
