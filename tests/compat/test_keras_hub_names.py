"""Private names of KerasHub that this package touches: each test says what breaks without one."""

from __future__ import annotations

import inspect
from typing import Any

import keras_hub
import numpy as np
import pytest
from keras import ops

from dl_techniques.compat import keras_hub_decoders as parts
from dl_techniques.compat import keras_hub_pipeline
from tests.helpers import numbers

SIZES: dict[str, Any] = {
    "vocabulary_size": 16,
    "num_layers": 1,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
DECODERS = {
    "qwen": lambda: keras_hub.models.QwenBackbone(**SIZES),
    "qwen3": lambda: keras_hub.models.Qwen3Backbone(head_dim=4, **SIZES),
    "llama3": lambda: keras_hub.models.Llama3Backbone(**SIZES),
}


@pytest.mark.parametrize("name", DECODERS)
def test_parts_of_a_decoder_layer(name: str) -> None:
    """Without: no Qwen or Llama model answers."""
    layer = DECODERS[name]().transformer_layers[0]
    attention = parts.attention_of(layer)
    query, key, value = parts.query_key_value(attention)
    assert [tuple(d.kernel.shape) for d in (query, key, value)] == [(8, 2, 4), (8, 1, 4), (8, 1, 4)]
    assert tuple(parts.attention_output(attention).kernel.shape) == (2, 4, 8)
    assert [tuple(d.kernel.shape) for d in parts.gate_and_inner(layer)] == [(8, 12)] * 2
    assert tuple(parts.feed_forward_output(layer).kernel.shape) == (12, 8)
    for norm in (parts.attention_norm(layer), parts.feed_forward_norm(layer)):
        assert tuple(norm.scale.shape) == (8,)
    norms = parts.query_key_norms(attention)
    assert (norms is not None) == (name == "qwen3")


def test_angles_of_rotary_embeddings() -> None:
    """Without: every position is a wrong one."""
    rotary = keras_hub.layers.RotaryEmbedding(max_wavelength=100)
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(1, 3, 2, 4)).astype("float32"))
    cosines, sines = parts.cosines_and_sines(rotary, x[:, :, :1], 5)
    assert tuple(cosines.shape) == (1, 3, 1, 4)
    np.testing.assert_array_equal(numbers(sines)[..., :2], numbers(sines)[..., 2:])
    swapped = ops.concatenate([-x[..., 2:], x[..., :2]], axis=-1)
    expected = rotary(x, start_index=5)
    np.testing.assert_allclose(numbers(x * cosines + swapped * sines), numbers(expected), atol=1e-6)
    both = parts.cosines_and_sines(rotary, x[:, :, :1], positions=np.array([[0, 1, 2], [5, 6, 7]]))
    np.testing.assert_array_equal(numbers(both[0])[1:], numbers(cosines))


def test_the_pipeline() -> None:
    """Without: `fit` on conversations wants TensorFlow or Grain, and prompts fail in `tf.data`."""
    assert not keras_hub_pipeline.in_tf_function()
    assert keras_hub_pipeline.PipelineModel in keras_hub.models.CausalLM.__mro__


def test_hooks_of_tokenizers() -> None:
    """Without: text is cut into other tokens than the published models were trained on."""
    base = keras_hub.tokenizers.BytePairTokenizer
    for name in ("_set_vocabulary_and_merges_tf", "_set_vocabulary_and_merges_tokenizers"):
        assert list(inspect.signature(getattr(base, name)).parameters)[0] == "self"
    tokenizer = base(unsplittable_tokens=["<end>"])
    with pytest.raises(ValueError, match="vocabulary"):
        keras_hub_pipeline.check_vocabulary(tokenizer)
    keras_hub_pipeline.add_special_token(tokenizer, "<end>", "end_token")
    vocabulary = {"a": 0, "b": 1, "ab": 2, "<end>": 3}
    tokenizer.set_vocabulary_and_merges(vocabulary, ["a b"])
    keras_hub_pipeline.find_special_tokens(tokenizer)
    assert tokenizer.end_token_id == 3
    keras_hub_pipeline.check_vocabulary(tokenizer)
