"""`fastvlm evaluate --data DIR`: exact match beside the baselines, as a table or JSON."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dl_techniques.cli import session
from dl_techniques.cli.options import add_preset_option, add_server_option, positive_int
from dl_techniques.cli.output import check_writable, write_atomically
from dl_techniques.cli.progress import Progress
from dl_techniques.loading.for_answers import Sampling

if TYPE_CHECKING:
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


def measure(
    answerer: Answerer, sets: list[QuestionSet], options: argparse.Namespace
) -> list[SetResult]:
    """Evaluates every set, with a progress bar over all questions."""
    from dl_techniques.evaluation import evaluate_set

    total = sum(2 * len(questions.records) for questions in sets)
    with Progress("questions", total) as bar:
        return [
            evaluate_set(
                answerer, questions, options.batch_size, bar.advance, options.max_new_tokens
            )
            for questions in sets
        ]


def run(options: argparse.Namespace) -> int:
    """Evaluates a preset and prints the figures."""
    from dl_techniques.evaluation import load_sets
    from dl_techniques.evaluation.report import as_report, to_json, to_table

    if options.output is not None:
        check_writable(options.output)
    sets = load_sets(options.data, options.limit)
    start = time.perf_counter()
    with session.open_answerer(options.preset, Sampling(), options.server) as answerer:
        results = measure(answerer, sets, options)
        computed_by = session.backend_of(answerer)
    report = as_report(options.server or options.preset, results, time.perf_counter() - start)
    report["machine"]["backend"] = computed_by
    if options.output is not None:
        write_atomically(options.output, to_json(report))
    print(to_json(report) if options.json else to_table(report, results), flush=True)
    return 0
