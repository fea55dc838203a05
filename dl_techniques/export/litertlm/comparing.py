"""The engine's answers beside those of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from dl_techniques.export.report import Check
from dl_techniques.hosts.litertlm_apart import Answer, Turn

# Fewer bits change some answers of a sound bundle; of one that sees nothing nearly all.
TEXT_GATES = {"float32": 1.0, "int8": 0.5}


def keras_answers(model: keras.Model, turns: Sequence[Turn], max_new_tokens: int) -> list[Answer]:
    """Keras' greedy answers to questions that stand alone."""
    records = [{"prompts": turn.question, "images": list(turn.pictures)} for turn in turns]
    texts = [
        model.generate(record, max_new_tokens=max_new_tokens, sampler="greedy")
        for record in records
    ]
    return [
        Answer(prompt_ids(model, record), text) for record, text in zip(records, texts, strict=True)
    ]


def prompt_ids(model: keras.Model, record: dict[str, Any]) -> list[int]:
    """What Keras reads: the ids of a prompt, -1 for each row of a picture."""
    inputs = model.preprocessor.generate_preprocess(record)
    mask = np.asarray(keras.ops.convert_to_numpy(inputs["padding_mask"])).astype(bool)
    ids = np.array(inputs["token_ids"])
    places = np.asarray(inputs["vision_indices"])
    ids[0, places[0][places[0] < ids.shape[1]]] = -1
    found: list[int] = ids[0][mask[0]].tolist()
    return found


def compare_answers(
    turns: Sequence[Turn], expected: Sequence[Answer], got: Sequence[Answer], precision: str
) -> tuple[Check, ...]:
    """Prompts, texts, and whether the pictures count.

    Args:
        turns: what was asked.
        expected: of Keras.
        got: of the engine.
        precision: which gate the texts must pass.
    """
    gate = TEXT_GATES[precision]
    prompts = _share([a.prompt == b.prompt for a, b in zip(expected, got, strict=True)])
    texts = _share([a.text == b.text for a, b in zip(expected, got, strict=True)])
    checks = [
        _check("prompt tokens", len(turns), prompts, 1.0),
        _check("greedy text", len(turns), texts, gate),
    ]
    seen = _pictures_seen(turns, expected, got)
    if seen:
        checks.append(_check("questions whose answer depends on the picture", *seen, 1.0))
    return tuple(checks)


def _pictures_seen(
    turns: Sequence[Turn], expected: Sequence[Answer], got: Sequence[Answer]
) -> tuple[int, float] | None:
    """Of the questions that Keras answers differently for different pictures: how many, and the
    share that the engine does too. None if Keras has one answer for everything."""
    differing = []
    for question in {turn.question for turn in turns}:
        rows = [i for i, turn in enumerate(turns) if turn.question == question]
        if len({expected[i].text for i in rows}) > 1:
            differing.append(len({got[i].text for i in rows}) > 1)
    return (len(differing), _share(differing)) if differing else None


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _check(what: str, samples: int, agreement: float, gate: float) -> Check:
    return Check(
        what,
        samples,
        max_difference=None,
        relative=None,
        psnr=None,
        agreement=agreement,
        limit=f"agreement at least {gate:g}",
        passed=agreement >= gate,
    )
