"""`fastvlm describe IMAGE...`: says what is on each picture, or on those of a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from dl_techniques.cli.answering import answer_all
from dl_techniques.cli.folder import describe_folder
from dl_techniques.cli.options import (
    IMAGE_HELP,
    add_logprobs_option,
    add_model_options,
    add_sampling_options,
    add_server_option,
    add_writing_options,
    positive_int,
)
from dl_techniques.errors import DLTechniquesError

QUESTION = "describe the picture."


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "describe", help="describe pictures", description="Describe one or several pictures."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGE_HELP)
    add_model_options(parser)
    add_server_option(parser)
    add_sampling_options(parser)
    add_writing_options(parser)
    add_logprobs_option(parser)
    group = parser.add_argument_group("a folder instead of pictures")
    group.add_argument(
        "--output",
        metavar="FILE",
        help="JSON lines, one a picture; started again, the command goes on with the others",
    )
    group.add_argument(
        "--batch-size",
        type=positive_int,
        default=8,
        metavar="N",
        help="pictures that are answered together (default: 8)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Describes every picture, or those of a folder.

    Raises:
        DLTechniquesError: a folder without --output, or --output without one folder.
    """
    folders = [path for path in options.images if Path(path).is_dir()]
    if options.output is not None:
        if len(folders) != 1 or len(options.images) != 1:
            raise DLTechniquesError("--output is for one folder; name it, and nothing else")
        return describe_folder(Path(folders[0]), QUESTION, options)
    if folders:
        raise DLTechniquesError(f"{folders[0]} is a folder; add --output captions.jsonl")
    return answer_all([(path, QUESTION) for path in options.images], options)
