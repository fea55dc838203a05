"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from dl_techniques.loading.for_answers import Sampling as Sampling

DEFAULT_PRESET = "demo"
DEFAULT_NEW_TOKENS = 64
IMAGE_HELP = "a picture file, or - for stdin"
PRESET_HELP = "a shipped preset, a folder, or hf://organisation/name"
LARGEST_SEED = 2**32 - 1  # what every backend takes
MAX_PIXELS = 8192 * 6144  # as in data.images, which would have Pillow loaded here


def whole_number(text: str, low: int, high: int | None = None) -> int:
    """A whole number in a range, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none, or lies outside.
    """
    wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low or (high is not None and value > high):
        raise argparse.ArgumentTypeError(f"expected a whole number {wanted}, got {text[:100]!r}")
    return value


def positive_int(text: str) -> int:
    """An integer of at least 1, for argparse."""
    return whole_number(text, 1)


def count(text: str) -> int:
    """An integer of at least 0, for argparse."""
    return whole_number(text, 0)


def seed(text: str) -> int:
    """A seed of 32 bits, for argparse."""
    return whole_number(text, 0, LARGEST_SEED)


def real_number(text: str, wanted: str, allowed: Callable[[float], bool]) -> float:
    """A finite number that is allowed, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none, or is not allowed.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text[:100]!r}")
    return value


def temperature(text: str) -> float:
    """A finite number of at least 0, for argparse."""
    return real_number(text, "of at least 0", lambda value: value >= 0.0)


def positive_number(text: str) -> float:
    """A finite number above 0, for argparse."""
    return real_number(text, "above 0", lambda value: value > 0.0)


def probability(text: str) -> float:
    """A number above 0 and up to 1, for argparse."""
    return real_number(text, "above 0 and up to 1", lambda value: 0.0 < value <= 1.0)


def any_number(text: str) -> float:
    """A finite number, for argparse."""
    return real_number(text, "that is finite", lambda value: True)


def not_empty(text: str) -> str:
    """A text of at least one character, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("expected at least one character")
    return text


def question(text: str) -> str:
    """A text that can be tokenized, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is not UTF-8, or blank.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            f"not UTF-8 at character {error.start + 1} of {len(text)}; set the terminal to UTF-8"
        ) from error
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "the question is empty; write one, such as 'What is in the picture?'"
        )
    return text


def add_preset_option(parser: argparse.ArgumentParser) -> None:
    """Adds --preset."""
    parser.add_argument(
        "--preset",
        default=DEFAULT_PRESET,
        help=f"{PRESET_HELP} (default: {DEFAULT_PRESET})",
    )


def add_server_option(parser: argparse.ArgumentParser) -> None:
    """Adds --server."""
    parser.add_argument(
        "--server",
        metavar="URL",
        help="ask a running `fastvlm serve` instead of loading a preset; its token is that of "
        "FASTVLM_TOKEN",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds --preset, --max-pixels, --max-new-tokens and --json."""
    add_preset_option(parser)
    parser.add_argument(
        "--max-new-tokens",
        type=positive_int,
        default=DEFAULT_NEW_TOKENS,
        metavar="N",
        help=f"longest answer, in tokens (default: {DEFAULT_NEW_TOKENS})",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"refuse pictures with more pixels (default: {MAX_PIXELS})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Adds --temperature, --top-k, --top-p and --seed."""
    group = parser.add_argument_group("sampling (greedy unless one of these is given)")
    group.add_argument("--temperature", type=temperature, metavar="T", help="0 is greedy")
    group.add_argument(
        "--top-k", type=positive_int, metavar="K", help="draw among the K most likely tokens"
    )
    group.add_argument(
        "--top-p",
        type=probability,
        metavar="P",
        help="draw among the fewest tokens that have this probability together",
    )
    group.add_argument("--seed", type=seed, metavar="SEED", help="the same seed, the same answer")


def add_writing_options(parser: argparse.ArgumentParser) -> None:
    """Adds --stop, --min-new-tokens, the penalties and --logprobs."""
    group = parser.add_argument_group("the answer's text")
    group.add_argument(
        "--stop",
        action="append",
        type=not_empty,
        metavar="TEXT",
        help="end the answer before this text; may be given several times",
    )
    group.add_argument(
        "--min-new-tokens",
        type=count,
        metavar="N",
        help="let nothing end the answer before so many tokens",
    )
    group.add_argument(
        "--repetition-penalty",
        type=positive_number,
        metavar="P",
        help="above 1: avoid tokens that the prompt or the answer has",
    )
    group.add_argument(
        "--no-repeat-ngram-size",
        type=count,
        metavar="N",
        help="write no run of N tokens that was there before",
    )
    group.add_argument(
        "--presence-penalty", type=any_number, metavar="P", help="avoid tokens of the answer"
    )
    group.add_argument(
        "--frequency-penalty",
        type=any_number,
        metavar="P",
        help="avoid them the more, the more often they occur",
    )


def add_logprobs_option(parser: argparse.ArgumentParser) -> None:
    """Adds --logprobs."""
    parser.add_argument(
        "--logprobs",
        type=count,
        metavar="K",
        help="with --json: log-probabilities of the tokens and of the K likeliest at each place",
    )


def writing_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the options ask of an answer's text, as keywords of `stream` and `Chat`."""
    names = (
        "stop",
        "min_new_tokens",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "presence_penalty",
        "frequency_penalty",
    )
    given = {name: getattr(options, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def sampling_of(options: argparse.Namespace) -> Sampling:
    """The sampling that the options ask for.

    A top-k, top-p or seed without a temperature means temperature 1: a limit on a draw that
    is never made would be an option without an effect.
    """
    drawn = any(x is not None for x in (options.top_k, options.top_p, options.seed))
    value = options.temperature
    if value is None:
        value = 1.0 if drawn else 0.0
    return Sampling(value, options.top_k, options.top_p, options.seed)
