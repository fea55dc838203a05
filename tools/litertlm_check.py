"""What a `.litertlm` bundle of a preset costs, and what the LiteRT-LM engine answers beside Keras.

    KERAS_BACKEND=tensorflow python -m tools.litertlm_check --preset demo

Writes a bundle in each precision, asks every question about every picture, prints the answers of
Keras and of the engine where they differ, and a table of sizes and shares.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_techniques import FastVLMCausalLM
from dl_techniques.data.images import load_image
from dl_techniques.errors import DLTechniquesError
from dl_techniques.export.litertlm.bundle import MAX_NEW_TOKENS, export_bundle
from dl_techniques.export.litertlm.comparing import TEXT_GATES, keras_answers
from dl_techniques.hosts.litertlm_apart import Answer, Turn, engine_answers

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = tuple(EXAMPLES / name for name in ("scene.png", "dress.jpg", "emoji.png", "word.png"))
QUESTIONS = ("what is this?", "what word is this?", "how many objects are there?")


def differences(
    names: Sequence[str], turns: Sequence[Turn], keras: Sequence[Answer], engine: Sequence[Answer]
) -> list[str]:
    """A line for every answer of the engine that is not Keras'."""
    return [
        f"  {name}, {turn.question!r}: Keras {ours.text!r}, engine {theirs.text!r}"
        for name, turn, ours, theirs in zip(names, turns, keras, engine, strict=True)
        if ours.text != theirs.text
    ]


def measure(model: Any, precision: str, options: argparse.Namespace) -> str:
    """Writes one bundle, prints what differs; returns its row of the table."""
    turns = [
        Turn(question, (load_image(path),))
        for path in options.pictures
        for question in options.questions
    ]
    names = [path.name for path in options.pictures for _ in options.questions]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.litertlm"
        report = export_bundle(
            model,
            path,
            precision=precision,
            pictures=options.pictures,
            question=options.questions,
            max_new_tokens=options.max_new_tokens,
        )
        asked = engine_answers(path, [[turn] for turn in turns], options.max_new_tokens)
    engine = [answers[0] for answers in asked]
    expected = keras_answers(model, turns, options.max_new_tokens)
    lines = differences(names, turns, expected, engine)
    print("\n".join([f"{precision}, {report.runtime}:", *(lines or ["  all answers equal"])]))
    for note in report.notes:
        print(f"  {note}")
    same = len(turns) - len(lines)
    distinct = len({answer.text for answer in engine})
    return f"| {precision} | {sum(report.files.values()):,} | {same} of {len(turns)} | {distinct} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--precisions", nargs="+", choices=list(TEXT_GATES), default=[*TEXT_GATES])
    parser.add_argument("--pictures", nargs="+", type=Path, default=list(PICTURES))
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS))
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS)
    options = parser.parse_args(argv)
    try:
        model = FastVLMCausalLM.from_preset(options.preset)
        rows = [measure(model, precision, options) for precision in options.precisions]
    except DLTechniquesError as error:
        print(error)
        return 2
    print(
        "| precision | bytes | same greedy text as Keras | different answers |\n|---|---|---|---|"
    )
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
