"""Writes the card of the shipped model, its figures taken from the report of `fastvlm evaluate`.

fastvlm evaluate --preset demo --data SETS --output report.json
python -m tools.demo_model.model_card --report report.json --preset dl_techniques/presets/demo \\
    --parameters 5708832 --language-minutes "35, 23, 83, 26, 45 and 78"
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
}
CARD = """# demo: the model that comes with dl_techniques

A vision-language model of {parameters} parameters: FastVLM encoder (variant `demo`, 64 px, 16
visual tokens, folded), two dense layers, a Qwen2-type decoder of 7 layers with a vocabulary of
2048. Weights are float16 on disk and float32 in memory. It shows that the whole way works, on any
backend and without a download. It was trained in sittings that each went on from the last. Ten on
two CPU cores: the encoder for 46 epochs of 16 000 pictures (about 43, 82, 33 and 45 minutes),
projector and decoder on the frozen encoder (about {language} minutes).
The fifth of those sittings began with words raised to the size of a picture's rows, and with
two more layers (`--ground 3 --layers 5 --dtype mixed_bfloat16`); the sixth with a first layer
that was fitted to look from a word at what it names (12 800 pictures, 12 epochs), then 47
epochs of 4 000 records. That layer lost its look in training, so three more sittings of 20, 9
and 20 epochs followed: the seventh on the sixth's layer, told to write in the answers' words;
the eighth with a fresh layer of that kind below it, which is held since (`--point`, now fitted
to 16 000 pictures and 6 000 questions); the ninth with a head of the sixth's layer fitted to
copy to the answer what is written at nouns (`copying`, for which a run of the recipe adds a
layer of its own). What is fitted was fitted in runs of its own, by the same functions. The
tenth sitting, of 12 epochs (`--hold --rate 1e-3`, PyTorch, an older processor), went on from
there with three more artists' drawings to name.
The eleventh was the first on an accelerator, one H200 and 16 cores that drew (JAX; the options are
in `tools/demo_model/train.py`): the encoder in its branched form, but for its attention blocks,
for 37 epochs of 32 768 pictures in three minutes, then encoder, projector and decoder together for
17 epochs of 32 768 records in two and a half, half of each drawn for the first time and half given
once more. The twelfth, on two CPU cores (an older processor, PyTorch), taught the decoder names on
the frozen encoder for 45 minutes (`--short --rate 4e-4 --language-minutes 44`, four of five records
a drawing). The thirteenth, on the same cores (PyTorch), taught the encoder to read smaller print
(`--read-minutes 16,22`, 151 000 pictures for the first stages and 102 000 for all), then everything
together for 39 epochs of 1024 records in 33 minutes (`--short --together-rate 4e-4`, half of them
words); each core ran the recipe on pictures of its own, and a driver averaged the gradients; its
weights were averaged with the twelfth's (`--mean`). The fourteenth, on one of these cores
(PyTorch), was for words of five and six letters (`--long-words 0.5`): the first stages for 20
minutes with Muon (96 000 pictures), the whole encoder for 33 (81 000), then everything together for
54 (34 000 records, four of ten words). Seven parts of its weights and three of the thirteenth's
(`--mean 0.7`) went on into the fifteenth, on both cores (PyTorch): on one the first stages for 28
minutes with Muon (131 000 pictures) and the whole encoder for 20 (47 000); then, shown the map
before the last one as well (`--finer 128`), encoder and projector with the decoder held
(`--rows-minutes`), for 12 minutes, and on the other core for 18 without the 20 before. The mean of
both went on, on each core with a seed and a mix of its own, with everything together for 42 minutes
(51 200 records in all, about half of them words). The sixteenth went on from the mean of both on
both cores in the same way, for 98 minutes on each (155 000 records in all). The seventeenth went on
from the mean of these two for 100 minutes on each core, with common English words in place of most
of the letters at random that half of the words had been (`--common-words`), so that the decoder
learns how words are spelt; eight parts of the mean of its two runs and two of what the sixteenth
had shipped were shipped. The eighteenth went on from these for 78 minutes on each core, a newer
processor (332 000 records in all, half of them words and a quarter scenes), and ended in the same
proportions. Since the twelfth, single drawings, words and photos had been asked for their names
alone, and the model no longer described them. So the nineteenth, of 19 minutes on each core, asked
a third of them for something else, half of those for a caption (`--others`; 81 000 records in all).
What is shipped is the mean of its two runs (`average`; with two parts of what it began from, it
read 92.2 of 100 words, but told 81.2 of them in a sentence and described 23.2 of 100 photos; these
figures were looked at for that).

## What it can do, measured

Exact match in per cent, on data never trained on. Majority: the commonest answer. Question only: a
model that sees no picture. Shuffled: this model with the pictures exchanged. Target: what the
recipe set out for; where the figure is lower, it was missed.

{table}

{place} Measured by `fastvlm evaluate --preset demo --data SETS --limit 700`, the sets made by
`python -m tools.demo_model.benchmark --work WORK --clothing TAR --out SETS`.

## What it cannot do

- Where the figure above is near a baseline, the answer is a guess, in good English all the same.
- It knows nothing of photos other than clothes, of scenes other than drawings on plain grounds, of
  the world, or of languages other than English, and it does not say so.
- It was trained on one picture a prompt and at most three turns a conversation.
- It sees 64 x 64 pixels of a picture padded to a square.

## What it was made from

- Drawings of Noto Emoji (Apache-2.0), Twemoji (CC-BY-4.0, by Twitter and contributors) and Fluent
  Emoji (MIT); in the last sittings, for names alone, also of Noto Emoji's first edition
  (Apache-2.0), FxEmojis (Apache-2.0, by Mozilla) and Streamline Emojis (CC-BY-4.0, by Streamline).
  EmojiOne and OpenMoji were used for measuring only.
- easy-VQA's training set (MIT), by Victor Zhou.
- Photos of clothing-dataset-small, training folder (CC0), by Alexey Grigorev and contributors.
- Words printed in fonts that come with matplotlib; in the last sittings most of them of the
  commonest in film subtitles, as pyspellchecker (MIT) counts them.

The recipe, from downloads to a preset:
`python -m tools.demo_model.train --work WORK --clothing TAR --out PRESET --frozen`. `--start MODEL`
goes on from an earlier one, which is how this one was made: sittings of the encoder differed in the
shares of the kinds (`--pretrain-mix`, printed words from 10 to 40 %), those of the language in
`--mix`; one sitting of each ran side by side and was ended before its last epochs, where the moving
averages of its last backup were taken.
The weights are under the licence of the package, Apache-2.0.
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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


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
    parser.add_argument("--parameters", type=int, required=True, help="as printed by the recipe")
    parser.add_argument("--language-minutes", required=True, help="as the recipe printed them")
    options = parser.parse_args(arguments)
    report = json.loads(options.report.read_text(encoding="utf-8"))
    text = CARD.format(
        parameters=f"{options.parameters:,}",
        language=options.language_minutes,
        table=table(report),
        place=place(report),
    )
    with atomic_writer(options.preset / "README.md") as file:
        file.write(text)
    print(table(report))


if __name__ == "__main__":
    main()
