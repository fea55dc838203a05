"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

DEFAULT_PRESET = "demo"
DEFAULT_NEW_TOKENS = 64
MAX_PIXELS = 8192 * 6144  # as in data.images, which would have Pillow loaded here


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most likely one.

    Attributes:
        temperature: divisor of the logits; 0 is greedy.
        top_k: keep the k most likely tokens, or None.
        top_p: keep the smallest set with this probability, or None.
        seed: seed of the draw, or None.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """True where nothing is drawn."""
        return self.temperature == 0.0


def positive_int(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def temperature(text: str) -> float:
    """A finite number of at least 0, for argparse."""
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def probability(text: str) -> float:
    """A number above 0 and up to 1, for argparse."""
    value = float(text)
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text}")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds --preset, --max-pixels, --max-new-tokens and --json."""
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, help="a shipped preset or a folder (default: demo)"
    )
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
    group.add_argument("--top-k", type=positive_int, metavar="K")
    group.add_argument("--top-p", type=probability, metavar="P")
    group.add_argument("--seed", type=int, metavar="SEED")


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
