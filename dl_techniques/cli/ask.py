"""`fastvlm ask IMAGE QUESTION`: answers one question about one picture."""

from __future__ import annotations

import argparse

from dl_techniques.cli.answering import answer_all
from dl_techniques.cli.options import add_model_options, add_sampling_options
from dl_techniques.errors import PromptError


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "ask", help="ask about a picture", description="Answer a question about a picture."
    )
    parser.add_argument("image", metavar="IMAGE", help="a picture file")
    parser.add_argument("question", metavar="QUESTION", help="in quotes")
    add_model_options(parser)
    add_sampling_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answers the question.

    Raises:
        PromptError: the question is empty.
    """
    if not options.question.strip():
        raise PromptError("the question is empty; write one, such as 'What is in the picture?'")
    answer_all([(options.image, options.question)], options)
    return 0
