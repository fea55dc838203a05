"""What keeping fewer rows of a picture costs and gains: accuracy and time to the first token.

    python -m tools.token_selection --data SETS --limit 300

`SETS` is what `recipes.demo.benchmark` writes. The accuracy is the shipped demo model's, whose
pictures have 16 rows beside those of name tags, which always stay; the time is that of a model of
FastVLM-0.5B's shape with random weights, whose pictures have 256, for one picture and 24 tokens of
text. A line keeps the same share of both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.evaluation import QuestionSet, load_sets
from dl_techniques.evaluation.answerer import KerasAnswerer
from dl_techniques.evaluation.metrics import exact_match
from dl_techniques.evaluation.report import machine
from dl_techniques.evaluation.runner import answer_questions
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from dl_techniques.runtime.memory import keep_freed_memory

KEPT = (256, 144, 64, 49, 16)
TEXT_TOKENS = 24
MAX_NEW_TOKENS = 32
BATCH = 32


def share(kept: int, rows: int, places: int = KEPT[0]) -> int:
    """As many of `rows` as `kept` is of `places`, at least 1.

    Example:
        >>> [share(kept, 16) for kept in KEPT]
        [16, 9, 4, 3, 1]
    """
    return max(1, round(rows * kept / places))


def pick(questions: QuestionSet, limit: int | None) -> QuestionSet:
    """Some of a set's questions, drawn evenly from all of it."""
    number = len(questions.records)
    chosen = np.linspace(0, number - 1, min(number, limit or number)).astype(int)
    return QuestionSet(questions.name, tuple(questions.records[i] for i in chosen))


def accuracy(model: FastVLMCausalLM, questions: QuestionSet) -> float:
    """Share of questions whose answer is exact."""
    records = questions.records
    pictures = [record.image for record in records]
    told = answer_questions(KerasAnswerer(model, MAX_NEW_TOKENS), records, pictures, BATCH)
    answers = [answer for answer, _ in told]
    return exact_match(answers, [record.answer for record in records]) / len(records)


def accuracies(
    model: FastVLMCausalLM, sets: Sequence[QuestionSet], kept: Sequence[int]
) -> dict[int, list[float]]:
    """Rows kept -> accuracy on every set."""
    found = {}
    for number in kept:
        model.select_tokens(number)
        found[number] = [accuracy(model, questions) for questions in sets]
    return found


def first_token_seconds(model: FastVLMCausalLM, repeats: int) -> float:
    """From a picture's pixels and the tokens to the first logits: the fastest of warm runs.

    The encoder's share is seconds and the same for all rows: what else a machine does meanwhile
    hides what fewer of them save, and only ever adds.
    """
    rows = int(model.backbone.num_image_tokens or 0)
    length = rows + TEXT_TOKENS
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 1, (1, 1, *model.backbone.image_size, 3)).astype("float32")
    inputs = {
        "token_ids": rng.integers(0, 50, (1, length)).astype("int32"),
        "padding_mask": np.ones((1, length), bool),
        "vision_indices": np.arange(rows, dtype="int32")[None],
    }

    def run() -> float:
        start = time.perf_counter()
        logits, _ = model.prefill(inputs, model.encode_images(pixels), max_new_tokens=32)
        keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32"))
        return time.perf_counter() - start

    run()  # compiles
    return min(run() for _ in range(repeats))


def times(model: FastVLMCausalLM, kept: Sequence[int], repeats: int) -> dict[int, float]:
    """Rows kept -> seconds to the first token."""
    found = {}
    for number in kept:
        model.select_tokens(number)
        found[number] = first_token_seconds(model, repeats)
    return found


def table(
    names: Sequence[str],
    kept: Sequence[tuple[int, int]],
    rates: dict[int, list[float]],
    seconds: dict[int, float],
) -> str:
    """The table, a line for each (kept of the large model, kept of the demo)."""
    large, small = zip(*kept, strict=True)
    heads = [f"kept of {large[0]}", f"of {small[0]}", *names, "mean"]
    heads += ["first token, s", f"to that of {large[0]}"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for many, few in kept:
        cells = [str(many), str(few)]
        cells += [f"{100 * rate:.1f}" for rate in [*rates[few], float(np.mean(rates[few]))]]
        cells += [f"{seconds[many]:.3f}", f"{seconds[many] / seconds[large[0]]:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None, **shape: Any) -> int:
    """Measures and prints.

    Args:
        argv: the command line.
        **shape: numbers of the timed model that are to be others, for tests.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of sets")
    parser.add_argument("--limit", type=int, help="questions per set")
    parser.add_argument("--repeats", type=int, default=5, help="runs of a time")
    parser.add_argument("--dtype", default="float32", help="of the timed model")
    options = parser.parse_args(argv)
    keep_freed_memory()
    sets = [pick(questions, options.limit) for questions in load_sets(options.data)]
    demo = FastVLMCausalLM.from_preset("demo")
    demo.compile(sampler="greedy")
    rows = int(demo.backbone.num_image_tokens or 0)
    timed = FastVLMCausalLM.from_variant("fastvlm_0.5b", dtype=options.dtype, **shape)
    timed.reparameterize(fold=True)
    places = int(timed.backbone.num_image_tokens or 0)
    tags = demo.backbone.image_embedding.selector.num_last
    kept = [(share(number, places), tags + share(number, rows - tags)) for number in KEPT]
    rates = accuracies(demo, sets, [few for _, few in kept])
    seconds = times(timed, [many for many, _ in kept], options.repeats)
    print(table([questions.name for questions in sets], kept, rates, seconds))
    counts = ", ".join(f"{questions.name} {len(questions.records)}" for questions in sets)
    print(f"exact match in per cent; questions: {counts}")
    print(f"{options.dtype}; " + ", ".join(str(value) for value in machine().values()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
