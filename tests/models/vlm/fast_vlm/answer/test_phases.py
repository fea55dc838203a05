"""The phases: aligned, bucketed, cached, and still the plain forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import align_prompts, bucket, prompt_bucket
from dl_techniques.models.vlm.fast_vlm.answer.phases import Phases
from dl_techniques.runtime.compile import compile_function
from tests.helpers import numbers
from tests.models.vlm.fast_vlm.small_model import (
    TOKENS,
    make_backbone,
    random_inputs,
)

LENGTHS, IMAGES = [14, 7, 21], [1, 0, 2]


@pytest.fixture(scope="module")
def phases() -> Any:
    return Phases(make_backbone())


@pytest.fixture(scope="module")
def opt_phases() -> Any:
    return Phases(make_backbone("opt"))


def plain_logits(backbone: Any, inputs: Any, steps: Any) -> Any:
    """Logits of right-padded rows, each followed by its steps, by the plain forward pass."""
    inputs = {k: np.array(v) for k, v in inputs.items()}
    for i, row in enumerate(steps):
        length = int(inputs["padding_mask"][i].sum())
        inputs["token_ids"][i, length : length + len(row)] = row
        inputs["padding_mask"][i, length : length + len(row)] = True
    run = compile_function(
        lambda x: backbone.decoder.logits(backbone(x, training=False)), backbone.variables
    )
    return numbers(run({k: v.astype("int32") if v.dtype == bool else v for k, v in inputs.items()}))


def test_buckets_grow_in_halves() -> None:
    sizes = [bucket(n) for n in range(1, 400)]
    assert all(size >= n for n, size in enumerate(sizes, 1))
    assert sorted(set(sizes)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]


def test_long_prompts_grow_in_eighths() -> None:
    sizes = [prompt_bucket(n) for n in range(1, 1100)]
    assert all(n <= size <= bucket(n) for n, size in enumerate(sizes, 1))
    assert sizes[:256] == [bucket(n) for n in range(1, 257)]
    assert all(size <= 1.125 * n for n, size in enumerate(sizes, 1) if n > 256)


def test_prompts_end_together(rng: np.random.Generator) -> None:
    inputs = random_inputs(rng, LENGTHS, IMAGES)
    prompts = align_prompts(inputs, TOKENS)
    assert prompts.token_ids.shape == (3, 24) and prompts.length == 21
    assert prompts.offsets.tolist() == [7, 14, 0]
    assert prompts.used.tolist() == [[True, False], [False, False], [True, True]]
    np.testing.assert_array_equal(prompts.token_ids[0, 7:21], inputs["token_ids"][0, :14])
    # Row 0's picture stood at 1..4 and now stands 7 further; its other slot is unused.
    assert prompts.vision_indices[0].tolist() == [8, 9, 10, 11, 24, 24, 24, 24]


@pytest.mark.parametrize("mask", [[[0, 0, 0]], [[0, 1, 1]], [[1, 0, 1]]])
def test_other_padding_is_refused(mask: Any) -> None:
    inputs = {"token_ids": [[1, 2, 3]], "padding_mask": np.array(mask)}
    with pytest.raises(PromptError, match="padding_mask"):
        align_prompts({**inputs, "vision_indices": np.zeros((1, 0))}, TOKENS)


@pytest.mark.parametrize("which", ["phases", "opt_phases"])
def test_prefill_and_steps_equal_the_plain_forward_pass(
    which: str, rng: np.random.Generator, request: pytest.FixtureRequest
) -> None:
    """A batch of unequal rows with 1, 0 and 2 pictures: logits as of each row alone."""
    phases = request.getfixturevalue(which)
    inputs = random_inputs(rng, LENGTHS, IMAGES)
    prompts = align_prompts(inputs, TOKENS)
    rows = phases.encode_images(inputs["images"], prompts.used)
    logits, state = phases.prefill(prompts, rows, 48)
    steps = rng.integers(5, 250, (3, 4)).astype("int32")
    got = [numbers(logits)]
    for tokens in steps.T:
        logits, state = phases.decode_step(tokens, state)
        got.append(numbers(logits))
    assert state.index == 25 and state.capacity == 48
    expected = plain_logits(phases.backbone, inputs, steps)
    for i, length in enumerate(LENGTHS):
        for step, logits in enumerate(got):
            np.testing.assert_allclose(logits[i], expected[i, length - 1 + step], atol=2e-4)


def test_extending_equals_reading_at_once(phases: Any, rng: np.random.Generator) -> None:
    """A conversation read in two pieces, with a rollback between them and a new picture."""
    inputs = random_inputs(rng, [20], [2])
    whole = align_prompts(inputs, TOKENS)
    rows = phases.encode_images(inputs["images"])
    expected, _ = phases.prefill(whole, rows, 48)
    first = {
        "token_ids": inputs["token_ids"][:, :5],
        "padding_mask": np.ones((1, 5), bool),
        "vision_indices": inputs["vision_indices"][:, :TOKENS],
    }
    logits, state = phases.prefill(align_prompts(first, TOKENS), rows[:, :TOKENS], 24)
    for _ in range(3):  # tokens that are taken back below
        logits, state = phases.decode_step(np.array([9], "int32"), state)
    rest = {
        "token_ids": inputs["token_ids"][:, 5:20],
        "padding_mask": np.ones((1, 15), bool),
        "vision_indices": inputs["vision_indices"][:, TOKENS:] - 5,
    }
    prompts = align_prompts(rest, TOKENS)
    logits, state = phases.extend(prompts, rows[:, TOKENS:], state, 5)
    np.testing.assert_allclose(numbers(logits), numbers(expected), atol=1e-4)
    assert state.index == 20


def test_unused_picture_slots_are_not_encoded(phases: Any, rng: np.random.Generator) -> None:
    images = rng.uniform(0, 1, (2, 2, 32, 32, 3)).astype("float32")
    images[0, 1] = np.nan
    used = np.array([[True, False], [True, True]])
    rows = numbers(phases.encode_images(images, used))
    assert rows.shape == (2, 2 * TOKENS, 32) and np.isfinite(rows).all()
    alone = numbers(phases.encode_images(images[1:, 1:]))
    np.testing.assert_allclose(rows[1:, TOKENS:], alone, atol=1e-5)


def test_many_pictures_equal_one_by_one(phases: Any, rng: np.random.Generator) -> None:
    images = rng.uniform(0, 1, (11, 1, 32, 32, 3)).astype("float32")
    together = numbers(phases.encode_images(images))
    one_by_one = np.concatenate(
        [numbers(phases.encode_images(images[i : i + 1])) for i in range(11)]
    )
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_no_picture_needs_no_encoder(phases: Any) -> None:
    rows = phases.encode_images(np.zeros((2, 0, 32, 32, 3), "float32"))
    assert rows.shape == (2, 0, 32)


def test_a_full_cache_is_refused(phases: Any, rng: np.random.Generator) -> None:
    prompts = align_prompts(random_inputs(rng, [16], [1]), TOKENS)
    rows = np.zeros((1, TOKENS, 32), "float32")
    _, state = phases.prefill(prompts, rows, 16)
    with pytest.raises(PromptError, match="16 slots"):
        phases.decode_step(np.array([1]), state)


def test_replaced_weights_are_seen(rng: np.random.Generator) -> None:
    """LoRA adds variables: a graph compiled before must not be used again."""
    backbone = make_backbone()
    phases = Phases(backbone)
    prompts = align_prompts(random_inputs(rng, [8], [1]), TOKENS)
    rows = phases.encode_images(np.zeros((1, 1, 32, 32, 3), "float32"))
    before = numbers(phases.prefill(prompts, rows, 24)[0])
    backbone.enable_lora(2)
    for weight in backbone.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    after = numbers(phases.prefill(prompts, rows, 24)[0])
    assert np.abs(after - before).max() > 1e-2
