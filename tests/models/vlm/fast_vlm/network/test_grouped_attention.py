"""Grouped attention: the same as with every key repeated, and as KerasHub's own layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm.network.decoders import DecoderAdapter, GroupedAdapter, adapt
from dl_techniques.models.vlm.fast_vlm.network.grouped_attention import grouped_attention
from dl_techniques.runtime.compile import compile_function
from tests.helpers import TOLERANCE, Array, numbers, random_array, relative_difference
from tests.models.vlm.fast_vlm.small_model import make_decoder, randomize

SLOTS, LENGTH = 12, 7


def plain_attention(query: Array, keys: Array, values: Array, visible: Array) -> Array:
    """In float64, every key and value repeated."""
    groups = query.shape[2] // keys.shape[2]
    keys, values = (np.repeat(x.astype("float64"), groups, axis=2) for x in (keys, values))
    scores = np.einsum("blhd,bshd->bhls", query, keys) / np.sqrt(query.shape[3])
    shares = np.exp(np.where(visible[:, None], scores, -np.inf))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.einsum("bhls,bshd->blhd", shares, values)


@pytest.mark.parametrize(("heads", "queries"), [(2, 14), (3, 3), (1, 4)])
def test_equals_attention_over_repeated_keys(heads: int, queries: int) -> None:
    query = random_array(2, 3, queries, 8) * 3
    keys, values = random_array(2, 5, heads, 8, seed=1), random_array(2, 5, heads, 8, seed=2)
    visible = np.arange(5)[None, None] <= np.array([2, 3, 4])[None, :, None]
    visible = np.repeat(visible, 2, axis=0)
    visible[1, :, 0] = False
    got = grouped_attention(*map(keras.ops.convert_to_tensor, (query, keys, values, visible)))
    assert relative_difference(got, plain_attention(query, keys, values, visible)) < TOLERANCE


def hidden_states(adapter: DecoderAdapter, ids: Array, mask: Array, tensor: bool) -> Array:
    """Of a prompt and one step more, through the caches; compiled.

    `tensor`: whether the first slot to write is given as a tensor, as to a recorded function.
    """

    def run(ids: Array, mask: Array) -> object:
        caches = adapter.empty_caches(2, SLOTS)
        parts = []
        for start, stop in ((0, LENGTH - 1), (LENGTH - 1, LENGTH)):
            x = adapter.embed(ids[:, start:stop])
            index = keras.ops.convert_to_tensor(start, "int32") if tensor else start
            hidden, caches = adapter.forward_cached(x, caches, index, mask)
            parts.append(hidden)
        return keras.ops.concatenate(parts, axis=1)

    return numbers(compile_function(run, adapter.backbone.variables)(ids, mask))


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("qwen", "float32", TOLERANCE),
        ("qwen3", "float32", TOLERANCE),
        ("llama3", "float32", TOLERANCE),
        ("qwen", "bfloat16", 0.05),
    ],
)
def test_equals_kerashubs_layers(kind: str, dtype: str, tolerance: float, tensor: bool) -> None:
    backbone = make_decoder(kind, dtype=dtype)
    randomize(backbone)
    ids = np.random.default_rng(0).integers(0, 250, (2, LENGTH)).astype("int32")
    offsets = np.array([[0], [3]])
    mask = np.arange(SLOTS) >= offsets
    adapter = adapt(backbone)
    assert isinstance(adapter, GroupedAdapter)
    both = (adapter, DecoderAdapter(backbone))
    got, expected = (hidden_states(a, ids, mask, tensor) for a in both)
    seen = np.arange(LENGTH) >= offsets
    assert relative_difference(got[seen], expected[seen]) < tolerance


@pytest.mark.parametrize(
    ("kind", "window"),
    [("qwen", {"use_sliding_window_attention": True}), ("qwen3", {"sliding_window_size": 4})],
)
def test_a_sliding_window_goes_through_the_layers_own_calls(kind: str, window: dict) -> None:
    assert type(adapt(make_decoder(kind, **window))) is DecoderAdapter
