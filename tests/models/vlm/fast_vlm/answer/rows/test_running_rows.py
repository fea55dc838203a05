"""Rows at places of their own give the logits of the phases, whatever the others do."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.phases import Phases
from dl_techniques.models.vlm.fast_vlm.answer.rows.running_rows import (
    RunningRows,
    can_join,
    rounded,
)
from tests.helpers import numbers
from tests.models.vlm.fast_vlm.small_model import WIDTH, make_backbone

ROWS, SLOTS, PIECE = 4, 48, 16


@pytest.fixture(scope="module")
def phases() -> Phases:
    return Phases(make_backbone())


@pytest.fixture(scope="module")
def rows(phases: Phases) -> RunningRows:
    return RunningRows(phases, ROWS, SLOTS)


def plain(phases: Any, prompt: Any, features: Any, pictured: Any, tokens: Any) -> Any:
    """Logits after a prompt and after each further token, by the plain forward pass."""
    decoder, backbone = phases.decoder, phases.backbone
    ids = np.concatenate([prompt, tokens]).astype("int32")[None]
    x = keras.ops.convert_to_numpy(decoder.embed(ids)).copy()
    x[0, : len(prompt)][pictured] = features[pictured]
    mask = np.ones(ids.shape, bool)
    hidden = decoder.forward(keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(mask))
    assert backbone.decoder is decoder
    return numbers(decoder.logits(hidden))[0, len(prompt) - 1 :]


def prompt_of(rng: np.random.Generator, length: Any) -> Any:
    ids = rng.integers(5, 250, length).astype("int32")
    features = rng.normal(size=(length, WIDTH)).astype("float32")
    return ids, features, rng.random(length) < 0.3


def read(rows: Any, which: Any, prompts: Any, starts: Any) -> Any:
    """Reads a piece of each prompt, from its start on."""
    number = len(prompts)
    ids, features = np.zeros((number, PIECE), "int32"), np.zeros((number, PIECE, WIDTH), "float32")
    pictured, lengths = np.zeros((number, PIECE), bool), np.zeros(number, "int32")
    for i, (prompt, start) in enumerate(zip(prompts, starts, strict=True)):
        lengths[i] = min(len(prompt[0]) - start, PIECE)
        for array, values in zip((ids, features, pictured), prompt, strict=True):
            array[i, : lengths[i]] = values[start : start + lengths[i]]
    logits = rows.read(np.array(which), ids, np.array(starts), lengths, features, pictured)
    return numbers(logits)


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())


def test_a_row_joins_while_others_run(
    phases: Phases, rows: RunningRows, rng: np.random.Generator
) -> None:
    first, second, third = (prompt_of(rng, length) for length in (9, 21, 5))
    tokens = rng.integers(5, 250, (3, 12))
    one, two, three = (
        plain(phases, *p, t) for p, t in zip((first, second, third), tokens, strict=True)
    )
    close(read(rows, [2], [first], [0])[0], one[0])
    close(numbers(rows.step(np.array([2]), tokens[0, :1], np.array([9])))[0], one[1])
    read(rows, [0], [second], [0])  # in two pieces, with steps of the other between them
    close(numbers(rows.step(np.array([2]), tokens[0, 1:2], np.array([10])))[0], one[2])
    close(read(rows, [0, 3], [second, third], [PIECE, 0])[:2], np.stack([two[0], three[0]]))
    for step in range(3):  # three of four rows: all of them are computed
        which, places = np.array([3, 0, 2]), np.array([5, 21, 11]) + step
        given = np.array([tokens[2, step], tokens[1, step], tokens[0, 2 + step]])
        got = numbers(rows.step(which, given, places))
        close(got[:3], np.stack([three[step + 1], two[step + 1], one[step + 3]]))


def test_a_row_is_copied_and_goes_on_from_the_beginning_it_holds(
    phases: Phases, rows: RunningRows, rng: np.random.Generator
) -> None:
    prompt = prompt_of(rng, 12)
    other = [np.concatenate([a[:8], b[:6]]) for a, b in zip(prompt, prompt_of(rng, 6), strict=True)]
    read(rows, [1], [prompt], [0])
    rows.copy(1, 3)
    rows.step(np.array([1]), np.array([77]), np.array([12]))  # the copy is another memory
    expected = plain(phases, *other, np.zeros(0, "int32"))[0]
    close(read(rows, [3], [other], [8])[0], expected)
    again = plain(phases, *prompt, np.array([77, 78]))[2]
    close(numbers(rows.step(np.array([1]), np.array([78]), np.array([13])))[0], again)


def test_a_full_row_and_bytes(phases: Phases, rng: np.random.Generator) -> None:
    rows = RunningRows(phases, 2, 16)
    prompt = prompt_of(rng, 15)
    expected = plain(phases, *prompt, np.zeros(0, "int32"))[0]
    close(read(rows, [1], [prompt], [0])[0], expected)
    assert rows.nbytes == 2 * 2 * 2 * 16 * 2 * 8 * 4  # rows, layers, keys and values, slots, ...


def test_other_decoders_are_refused() -> None:
    phases = Phases(make_backbone("opt"))
    assert not can_join(phases.backbone)
    with pytest.raises(PromptError, match="OPTBackbone cannot join"):
        RunningRows(phases, 2, 16)


@pytest.mark.parametrize("kind", ["qwen3", "llama3"])
def test_other_kinds_of_decoders(kind: str, rng: np.random.Generator) -> None:
    phases = Phases(make_backbone(kind))
    rows, prompt = RunningRows(phases, 2, 32), prompt_of(rng, 7)
    expected = plain(phases, *prompt, np.array([9]))
    close(read(rows, [1], [prompt], [0])[0], expected[0])
    close(numbers(rows.step(np.array([1]), np.array([9]), np.array([7])))[0], expected[1])


def test_numbers_are_rounded_up() -> None:
    assert [rounded(n, 6) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]
