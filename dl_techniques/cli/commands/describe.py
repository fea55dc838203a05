"""`fastvlm describe IMAGE...`: says what is on each picture."""

from __future__ import annotations

import argparse

from dl_techniques.cli.answering import answer_all
from dl_techniques.cli.options import (
    IMAGE_HELP,
    add_logprobs_option,
    add_model_options,
    add_sampling_options,
    add_server_option,
    add_writing_options,
)

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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Describes every picture."""
    return answer_all([(path, QUESTION) for path in options.images], options)
