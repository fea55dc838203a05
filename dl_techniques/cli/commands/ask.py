"""`fastvlm ask IMAGE QUESTION`: answers one question about one picture."""

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
    question,
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "ask", help="ask about a picture", description="Answer a question about a picture."
    )
    parser.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    parser.add_argument("question", type=question, metavar="QUESTION", help="in quotes")
    add_model_options(parser)
    add_server_option(parser)
    add_sampling_options(parser)
    add_writing_options(parser)
    add_logprobs_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answers the question."""
    return answer_all([(options.image, options.question)], options)
