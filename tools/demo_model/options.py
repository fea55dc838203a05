"""The options of the recipe's command."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.demo_model import finetune, optimizers, pretrain, words
from tools.demo_model.records import KINDS

LANGUAGE_MIX = {"scenes": 0.45, "emoji": 0.27, "words": 0.06, "easy_vqa": 0.12, "clothing": 0.10}


def parser(description: str) -> argparse.ArgumentParser:
    """The command's options; the defaults make a model from nothing."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--work", type=Path, required=True, help="folder of downloads and backups")
    made.add_argument("--clothing", type=Path, help="tar of the clothing photos")
    made.add_argument("--out", type=Path, required=True, help="folder of the finished preset")
    made.add_argument("--size", type=int, default=64, help="side of the pictures, pixels")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--pretrain-epochs", type=int, default=20, help="of stage 1; 0 keeps `--start`'s encoder"
    )
    made.add_argument("--start", type=Path, help="an earlier encoder, or model, to go on from")
    made.add_argument("--language-epochs", type=int, default=11, help="of stage 2; may be 0")
    made.add_argument("--together-epochs", type=int, default=7, help="0 leaves it out")
    made.add_argument("--frozen", action="store_true", help="keep the encoder frozen to the end")
    made.add_argument(
        "--branch", action="store_true", help="train a folded encoder in its branched form"
    )
    made.add_argument(
        "--mean",
        type=float,
        nargs="?",
        const=0.5,
        metavar="SHARE",
        help="end with a mean of the weights, a half or so much of them, and `--start`'s",
    )
    add_language_options(made)
    add_drawing_options(made)
    add_reading_options(made)
    shares = "share of each kind in {}, such as scenes=0.6,emoji=0.4"
    made.add_argument(
        "--pretrain-mix", type=parse_mix, default=pretrain.MIX, help=shares.format("stage 1")
    )
    made.add_argument(
        "--mix", type=parse_mix, default=LANGUAGE_MIX, help=shares.format("the language stages")
    )
    return made


def add_language_options(made: argparse.ArgumentParser) -> None:
    """Options of projector and decoder: what is added to them, and how they are trained."""
    made.add_argument(
        "--ground", type=float, metavar="SIZE", help="of words beside pictures, see `grounding`"
    )
    made.add_argument("--layers", type=int, help="of the decoder, where `--start`'s has fewer")
    made.add_argument(
        "--finer",
        type=int,
        metavar="UNITS",
        help="show the projector the map before the encoder's last as well, through so many units "
        "more: `finer`",
    )
    made.add_argument(
        "--point",
        action="store_true",
        help="two more layers, fitted to find objects and to tell of them: `pointing`, `copying`",
    )
    made.add_argument(
        "--hold", action="store_true", help="freeze what `--start`'s first layer looks at"
    )
    made.add_argument(
        "--dtype", default="float32", help="of the language stage's sums, such as mixed_bfloat16"
    )
    made.add_argument(
        "--rate", type=float, default=1.5e-3, help="peak learning rate of the language stage"
    )
    made.add_argument(
        "--together-rate", type=float, help="of the last stage; unless given 5e-4, frozen 1e-3"
    )
    made.add_argument("--records", type=int, default=8_000, help="records of an epoch")
    made.add_argument(
        "--short", action="store_true", help="one turn a record: more pictures in the same time"
    )
    made.add_argument(
        "--others",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of `--short` records that ask for something else than the name, half for a caption",
    )
    made.add_argument("--batch", type=int, default=32, help="rows of the language stages' batches")
    made.add_argument(
        "--buckets", type=parse_lengths, default=finetune.BUCKETS, help="lengths of their rows"
    )


def add_drawing_options(made: argparse.ArgumentParser) -> None:
    """Options for how much is drawn, by whom, and for how long."""
    made.add_argument("--pretrain-pictures", type=int, default=16_000, help="of an epoch")
    made.add_argument("--pretrain-batch", type=int, default=64, help="pictures of a batch")
    made.add_argument("--pretrain-rate", type=float, default=1e-3, help="peak learning rate")
    made.add_argument(
        "--processes",
        type=int,
        default=0,
        help="that draw ahead, where an accelerator is faster than one core draws",
    )
    made.add_argument(
        "--passes", type=int, default=1, help="how often each drawn batch is trained on"
    )
    for stage in ("pretrain", "language", "together"):
        made.add_argument(
            f"--{stage}-minutes", type=float, help="end the stage by the clock, without backups"
        )


def add_reading_options(made: argparse.ArgumentParser) -> None:
    """Options of the stage in which the encoder learns to read smaller print."""
    made.add_argument(
        "--read-minutes",
        type=parse_pair,
        metavar="EARLY,ALL",
        help="teach the encoder to read smaller print, its first stages and then all "
        "of it, by the clock, without backups: `reading`",
    )
    made.add_argument(
        "--rows-minutes",
        type=float,
        metavar="MINUTES",
        help="teach encoder and projector to make rows that `--start`'s decoder reads, by the "
        "clock, without backups: `legible`",
    )
    made.add_argument(
        "--read-rates",
        type=parse_pair,
        metavar="EARLY,ALL",
        default=(1.5e-3, 7e-4),
        help="peak learning rates of that; rows learn at the second",
    )
    made.add_argument(
        "--read-kept",
        type=parse_pair,
        metavar="EARLY,ALL",
        default=(4.0, 4.0),
        help="how strongly that keeps what the encoder makes of other pictures",
    )
    made.add_argument(
        "--early-optimizer",
        choices=optimizers.KINDS,
        default="adamw",
        help="of the first stages alone",
    )
    made.add_argument(
        "--read-batch",
        type=int,
        default=128,
        help="pictures of that stage's batches, 11 of 16 of them words",
    )
    made.add_argument(
        "--long-words",
        type=float,
        default=0.0,
        metavar="SHARE",
        help=f"of the words read that have at least {words.MANY_LETTERS} letters, "
        "beside those that happen to have them",
    )
    made.add_argument(
        "--common-words",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the words read that are common English ones; of the others, half are made up",
    )


def parse_mix(text: str) -> dict[str, float]:
    """Reads "scenes=0.6,emoji=0.4"."""
    mix = {kind: float(share) for kind, share in (part.split("=") for part in text.split(","))}
    if unknown := set(mix) - set(KINDS):
        raise argparse.ArgumentTypeError(f"unknown kinds {sorted(unknown)}, expected {KINDS}")
    return mix


def parse_lengths(text: str) -> tuple[int, ...]:
    """Reads "64,128"."""
    return tuple(int(length) for length in text.split(","))


def parse_pair(text: str) -> tuple[float, float]:
    """Reads "18,24"."""
    early, whole = (float(part) for part in text.split(","))
    return early, whole
