"""`fastvlm evaluate --data DIR`: exact match beside the baselines, as a table or JSON."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.cli import session
from dl_techniques.cli.options import add_preset_option, add_server_option, positive_int
from dl_techniques.cli.output import check_writable, write_atomically
from dl_techniques.cli.progress import Progress

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dl_techniques.evaluation import QuestionSet, SetResult
    from dl_techniques.evaluation.answerer import Answerer


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on sets of questions",
        description="Exact match on sets of questions, beside three baselines.",
    )
    add_preset_option(parser)
    add_server_option(parser)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a set, or a folder of sets"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="questions per set")
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        default=32,
        metavar="N",
        help="questions answered at once",
    )
    parser.add_argument(
        "--max-new-tokens", type=positive_int, default=32, metavar="N", help="longest answer"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON there")
    parser.set_defaults(run=run)


def make_answerer(model: keras.Model, max_new_tokens: int) -> Any:
    """A function from questions and the picture of each to answers."""
    from dl_techniques.evaluation.answerer import KerasAnswerer

    answerer = KerasAnswerer(model, max_new_tokens)

    def answer(questions: list[str], pictures: list[np.ndarray]) -> list[str]:
        return answerer.answer(questions, [[picture] for picture in pictures])

    return answer


def answerer_of(options: argparse.Namespace) -> Answerer:
    """The preset's model, greedy, or a server."""
    if options.server is not None:
        from dl_techniques.hosts.server import ServerAnswerer

        return ServerAnswerer(options.server, options.max_new_tokens)
    from dl_techniques.evaluation.answerer import KerasAnswerer

    model = session.load_model(options.preset)
    model.compile(sampler="greedy")
    return KerasAnswerer(model, options.max_new_tokens)


def measure(
    answerer: Answerer, sets: list[QuestionSet], options: argparse.Namespace
) -> list[SetResult]:
    """Evaluates every set, with a progress bar over all questions."""
    from dl_techniques.evaluation import evaluate_set

    total = sum(2 * len(questions.records) for questions in sets)
    with Progress("questions", total) as bar:
        return [
            evaluate_set(answerer, questions, options.batch_size, bar.advance) for questions in sets
        ]


def run(options: argparse.Namespace) -> int:
    """Evaluates a preset and prints the figures."""
    from dl_techniques.evaluation import load_sets
    from dl_techniques.evaluation.report import as_report, to_json, to_table

    if options.output is not None:
        check_writable(options.output)
    sets = load_sets(options.data, options.limit)
    start = time.perf_counter()
    results = measure(answerer_of(options), sets, options)
    report = as_report(options.server or options.preset, results, time.perf_counter() - start)
    if options.output is not None:
        write_atomically(options.output, to_json(report))
    print(to_json(report) if options.json else to_table(report, results), flush=True)
    return 0
