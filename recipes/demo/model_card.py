"""Writes the card of the shipped model, its figures taken from the report of `fastvlm evaluate`.

fastvlm evaluate --preset demo --data SETS --output report.json
python -m recipes.demo.model_card --report report.json --preset dl_techniques/presets/demo \\
    --before tests/kept/demo_report.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dl_techniques.data.files import atomic_writer

TARGETS = {
    "easy_vqa": 95,
    "scenes": 85,
    "emojione": 50,
    "openmoji": 30,
    "clothing": 65,
    "words": 90,
}
WHAT = {
    "easy_vqa": "public easy-VQA test set, its first n questions",
    "scenes": "composed scenes with held-out colour x shape or object x relation",
    "scenes_captions": "the same scenes told or listed in full, word for word",
    "emojione": "naming EmojiOne drawings (artist never seen), 650 labels",
    "emojione_captions": "the same drawings described in a sentence",
    "openmoji": "naming OpenMoji drawings (artist never seen), 650 labels",
    "clothing": "validation photos of clothes, 10 classes",
    "clothing_captions": "the same photos described in a sentence",
    "words": "printed words of 3 to 6 letters that were held out",
    "words_captions": "the same words told in a sentence",
    "emojione_elsewhere": "the EmojiOne drawings by another renderer, in other sizes, on paper",
    "openmoji_elsewhere": "the OpenMoji drawings by another renderer, in other sizes, on paper",
    "words_elsewhere": "the held-out words by another renderer, in other sizes, on paper",
    "photos_caltech": "naming validation photographs of Caltech-101, 100 classes",
    "photos_caltech_wordings": "the same in five wordings that were not trained",
    "photos_caltech_captions": "the same photographs described in a sentence",
    "photos_is_there": "the same: is there a (its class, or another)?",
    "photos_grocery": "naming validation photographs of groceries, 42 kinds",
    "photos_clothing_what": "naming the photos of clothes when asked what this is",
    "photos_clothing_wordings": "the same in five wordings that were not trained",
    "photos_person": "is there a person? Faces, photographs without anybody, CC-BY photographs",
    "photos_person_even": "the same, as many photographs with a person as without",
    "photos_background": "pictures of none of the classes: says that it is not sure",
    "photos_described": "22 CC-BY photographs described: named things that are there",
    "unknown_noise": "noise of kinds not trained on: says that it is not sure",
    "unknown_drawings": "drawings of made-up things: says that it is not sure",
}
TOLD_TARGETS = {
    "photos_caltech": {"accepted": 85, "plain": 75, "plain_right": 93},
    "photos_grocery": {"accepted": 70},
    "photos_clothing_what": {"accepted": 80},
    "photos_person": {"accepted": 92, "false_yes": 4},
    "photos_background": {"accepted": 80},
    "photos_described": {"things_right": 80},
    "unknown_noise": {"accepted": 80},
    "unknown_drawings": {"accepted": 80},
}
"""What the recipe set out for, in per cent; `false_yes` at most, the others at least."""

TOLD_COLUMNS = {
    "accepted": "right", "majority": "majority", "question_only": "question only",
    "shuffled": "shuffled", "plain": "plain", "plain_right": "right of these", "hedged": "hedged",
    "hedged_right": "right among two", "refused": "not sure", "false_yes": "yes for no",
    "things_right": "things that are there",
}  # fmt: skip
CARD = """# demo: the model that comes with dl_techniques

A vision-language model of {parameters} parameters. Two networks look at a picture of 224 x 224 px:
a FastVLM encoder (variant `demo`, 64 px, 16 visual tokens, folded), which was trained here on
drawings, clothes and printed words, and EfficientNet-Lite0, which knows photographs. What the
second one knows is told as name tags: its probabilities over {names} everyday names, calibrated on
photographs held back, as one row of facts and two rows for each of the three likeliest names. Two
dense layers and a Qwen2-type decoder of {layers} layers make an answer of it; its vocabulary is one
of {vocabulary}, in which every name is a token. Weights are float16 on disk and float32 in memory.
It shows that the whole way works, on any backend and without a download.

Of a photograph it says what it is of, or two things that it may be, or that it is not sure:
plainly where the likeliest name's probability is at least 0.7, with "may be" from 0.4 on.

## What it can do, measured

Exact match in per cent, on data never trained on. Majority: the commonest answer. Question only: a
model that sees no picture. Shuffled: this model with the pictures exchanged. Target: what the
recipe set out for; where the figure is lower, it was missed.

{tables}

{place} Measured by `fastvlm evaluate --preset demo --data SETS --limit {limit}`, the sets made by
`python -m recipes.demo.benchmark --work WORK --clothing TAR --out SETS` and
`python -m recipes.demo.photo_benchmark --photos PHOTOS --labels LABELS --out SETS`.

## What it cannot do

- It does not know actions, colours of things on photographs, counts above five, where on a
  photograph a thing is, or what is behind the main thing, but for whether a person is there. It
  writes no sentences of its own.
- Asked whether one named thing is there ("is there a dog?") it guesses, but for people, and in
  wordings far from those that were trained it names half of the photographs.
- A photograph that none of its names is right for should get "I am not sure what this is."; how
  often it does is told by the sets of background pictures, noise and made-up things.
- Where a figure above is near a baseline, the answer is a guess, in good English all the same.
{before}- It knows nothing of the world, and no language but English.
- It was trained on one picture a prompt and at most three turns a conversation.
- Of drawings and print it sees 64 x 64 pixels, of a picture padded to a square.

## What it was made from

- EfficientNet-Lite0, by Google (Apache-2.0), converted and folded. It was trained on ImageNet,
  whose pictures are for research. Everyday names of its classes were derived from WordNet 3.0
  (its licence: `LICENSES/LicenseRef-WordNet.txt`).
- Scores of names were fitted to photographs of Caltech-101 (CC-BY-4.0 as its publishers state; the
  photographs came from a web image search), the Grocery Store Dataset (MIT) and
  clothing-dataset-small (CC0, by Alexey Grigorev and contributors), training folders alone. None of
  them is in the package. A teacher told where a person is: NanoDet-m (Apache-2.0, by RangiLyu).
- Drawings of Noto Emoji (Apache-2.0), Twemoji (CC-BY-4.0, by Twitter and contributors) and Fluent
  Emoji (MIT), Noto Emoji's first edition (Apache-2.0), FxEmojis (Apache-2.0, by Mozilla) and
  Streamline Emojis (CC-BY-4.0, by Streamline). EmojiOne and OpenMoji were used for measuring only.
- easy-VQA's training set (MIT), by Victor Zhou.
- Words printed in fonts that come with matplotlib, most of them of the commonest in film
  subtitles, as pyspellchecker (MIT) counts them.

The encoder and the decoder came about in nineteen sittings that each went on from the last
(`recipes/demo/history.md`), some twenty-three hours on two CPU cores and six minutes on an H200;
the second tower and the names are the work of `recipes/demo/photographs.yaml`: `python -m
recipes.demo --recipe recipes/demo/photographs.yaml --work WORK --photos PHOTOS --labels LABELS
--start PRESET --out PRESET`.
The weights are under the licence of the package, Apache-2.0; see also `NOTICE`.
"""


def table(report: dict[str, Any]) -> str:
    """The measured sets as a Markdown table."""
    lines = [
        "| set | what | n | exact match (95 %) | majority | question only | shuffled | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in report["sets"]:
        name = result["name"]
        low, high = result["interval"]
        cells = [
            name,
            WHAT.get(name, ""),
            str(result["n"]),
            f"{_percent(result['exact_match'])} ({_percent(low)}-{_percent(high)})",
            *(_percent(result[key]) for key in ("majority", "question_only", "shuffled")),
            str(TARGETS.get(name, "-")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def told_table(report: dict[str, Any]) -> str:
    """How the answers of the sets are put that have more than exact ones, as a Markdown table; a
    target stands behind its figure. Empty where there is no such set."""
    told = [result for result in report["sets"] if "told" in result]
    if not told:
        return ""
    lines = [
        f"| set | what | n | {' | '.join(TOLD_COLUMNS.values())} |",
        "|---|---|---|" + "---|" * len(TOLD_COLUMNS),
    ]
    for result in told:
        name, figures = result["name"], result["told"]
        targets = TOLD_TARGETS.get(name, {})
        cells = [name, WHAT.get(name, ""), str(result["n"])]
        for key in TOLD_COLUMNS:
            cell = _percent(figures.get(key))
            if f"{key}_interval" in figures:
                low, high = figures[f"{key}_interval"]
                cell += f" ({_percent(low)}-{_percent(high)})"
            if key in targets:
                cell += f", target {targets[key]}"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def facts(preset: Path) -> dict[str, str]:
    """What the files of a preset tell: parameters, everyday names, decoder layers, vocabulary."""
    read = {
        name: json.loads((preset / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("metadata", "config")
    }
    parts = read["config"]["config"]
    decoder = parts["text_backbone"]["config"]
    return {
        "parameters": f"{read['metadata']['parameter_count']:,}",
        "names": str(len(parts["vision_encoder"]["config"]["tags"]["config"]["names"])),
        "layers": str(decoder["num_layers"]),
        "vocabulary": str(decoder["vocabulary_size"]),
    }


def lost(report: dict[str, Any], before: dict[str, Any]) -> str:
    """Where the weights of an earlier report were better, as a line of the card; empty if nowhere.

    Args:
        report: of the shipped weights.
        before: of earlier ones.
    """
    rates = {result["name"]: result["exact_match"] for result in before["sets"]}
    worse = [
        f"{result['name']} {_percent(rates[result['name']])}"
        for result in report["sets"]
        if result["exact_match"] < rates.get(result["name"], 0)
    ]
    if not worse:
        return ""
    return f"- The weights of {before['date'][:10]} were better at some sets: {', '.join(worse)}.\n"


def place(report: dict[str, Any]) -> str:
    """Where and when it was measured."""
    machine = report["machine"]
    return (
        f"{report['date'][:10]}, {machine['processor']}, "
        f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}, "
        f"{machine['backend']} backend."
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--preset", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="a report of earlier weights, to compare with")
    parser.add_argument("--limit", type=int, default=700, help="that the report was made with")
    options = parser.parse_args(arguments)
    report = json.loads(options.report.read_text(encoding="utf-8"))
    before = None
    if options.before is not None:
        before = json.loads(options.before.read_text(encoding="utf-8"))
    text = CARD.format(
        **facts(options.preset),
        limit=options.limit,
        before="" if before is None else lost(report, before),
        tables="\n\n".join(filter(None, (table(report), told_table(report)))),
        place=place(report),
    )
    with atomic_writer(options.preset / "README.md") as file:
        file.write(text)
    print(table(report))


if __name__ == "__main__":
    main()
