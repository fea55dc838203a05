"""Every decoder: from embeddings it is itself, and with caches it is the same again."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm.network.decoders import adapt, repeat_rows, take_rows
from dl_techniques.runtime.compile import compile_function
from tests.helpers import numbers
from tests.models.vlm.fast_vlm.small_model import DECODERS, make_decoder, randomize

LENGTH, CACHE, PREFIX = 9, 12, 5


@pytest.fixture(scope="module", params=list(DECODERS))
def decoder(request: pytest.FixtureRequest) -> Any:
    backbone = make_decoder(request.param)
    randomize(backbone)
    return adapt(backbone)


def plain_logits(decoder: Any, ids: Any) -> Any:
    """Logits as KerasHub's own backbone computes them from tokens."""

    def run(ids: Any) -> Any:
        mask = keras.ops.ones_like(ids)
        hidden = decoder.backbone({"token_ids": ids, "padding_mask": mask}, training=False)
        return decoder.logits(hidden)

    return numbers(compile_function(run, decoder.backbone.variables)(ids))


def cached_logits(decoder: Any) -> Any:
    """(ids, positions, first slot, slot mask, caches) -> logits, caches; compiled."""

    def run(ids: Any, positions: Any, start: Any, mask: Any, caches: Any) -> Any:
        x = decoder.add_positions(decoder.embed(ids), positions)
        hidden, caches = decoder.forward_cached(x, caches, start, mask)
        return decoder.logits(hidden), caches

    return compile_function(run, decoder.backbone.variables)


def test_from_embeddings_with_and_without_caches(decoder: Any, rng: np.random.Generator) -> None:
    """Prefill and single steps through the caches equal the plain decoder.

    Row 1 starts at slot 3, with masked padding in front: it must not notice.
    """
    ids = rng.integers(0, 250, (2, LENGTH)).astype("int32")
    ids[1, :3] = 7
    expected = [plain_logits(decoder, ids[:1])[0], plain_logits(decoder, ids[1:, 3:])[0]]
    offsets = np.array([[0], [3]])
    positions = np.maximum(np.arange(LENGTH) - offsets, 0).astype("int32")
    mask = np.arange(CACHE) >= offsets
    caches = decoder.grow_caches(decoder.empty_caches(2, PREFIX), CACHE - PREFIX)
    run, got = cached_logits(decoder), []
    for start, stop in [(0, PREFIX), *((i, i + 1) for i in range(PREFIX, LENGTH))]:
        part = slice(start, stop)
        logits, caches = run(ids[:, part], positions[:, part], start, mask, caches)
        got.append(numbers(logits))
    got = np.concatenate(got, axis=1)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(got[1, 3:], expected[1], atol=1e-4)


def test_rows_of_caches_can_be_repeated_and_taken() -> None:
    decoder = adapt(make_decoder("gemma3"))
    caches = keras.tree.map_structure(
        lambda c: c + keras.ops.reshape(keras.ops.arange(2, dtype="float32"), (2, 1, 1, 1)),
        decoder.empty_caches(2, 3),
    )
    repeated = repeat_rows(caches, 2)
    assert [float(numbers(repeated[0][0])[i, 0, 0, 0]) for i in range(4)] == [0, 0, 1, 1]
    taken = take_rows(repeated, keras.ops.convert_to_tensor(np.array([3, 0, 0, 2], "int32")))
    assert [float(numbers(taken[1][1])[i, 0, 0, 0]) for i in range(4)] == [1, 0, 0, 1]


def test_limits_of_positions_are_known() -> None:
    assert adapt(make_decoder("opt")).max_positions == 192
    assert adapt(make_decoder("qwen")).max_positions is None


def test_another_decoder_is_refused() -> None:
    gpt2 = keras_hub.models.GPT2Backbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8
    )
    with pytest.raises(TypeError, match="GPT2Backbone.*QwenBackbone"):
        adapt(gpt2)
