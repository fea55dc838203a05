"""The decoder as LiteRT signatures: `prefill_N` and `decode`, from embeddings, with its cache.

| signature | inputs | outputs |
|---|---|---|
| `prefill_N` | `embeddings` float32[1, N, D], `input_pos` int32[N], caches | caches |
| `decode` | the same with N = 1 | caches, `logits` float32[1, 1, V] |
| `embed` (on request) | `token_ids` int32[1, 1] | `embeddings` float32[1, 1, D] |

A cache is `kv_cache_k_i` and `kv_cache_v_i`, float32[1, heads, S, head size], for each layer i.

Only `input_pos[0]` counts: the rows of a call are written to the slots from there on. Rows of
padding behind the real ones cannot be seen by these (attention is causal), and what they write is
overwritten by the next call, or never seen. A call whose last row would lie beyond the last slot
must not be made: LiteRT would move it to the front.

Every family that `decoders.adapt` knows can be written: Qwen, Qwen3, Llama (Llama 3 and SmolLM2 as
well), Phi3, OPT, Gemma3.

Reference: the contract of LiteRT-LM, https://github.com/google-ai-edge/LiteRT-LM
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm.conversion import Signature
from dl_techniques.models.vlm.fast_vlm.network.decoders import Caches, DecoderAdapter
from dl_techniques.typing import Tensor

Specs = dict[str, tuple[tuple[int, ...], str]]
LOWEST = -3.4e38


def check_decoder(decoder: DecoderAdapter, cache_length: int) -> None:
    """Refuses what the files cannot hold.

    Raises:
        ExportError: another data type than float32, or a cache that is longer than the decoder's
            positions.
    """
    if decoder.compute_dtype != "float32":
        raise ExportError(
            f"the decoder computes in {decoder.compute_dtype}, and LiteRT's caches are float32; "
            'load the model with dtype="float32"'
        )
    limit = decoder.max_positions
    if limit is not None and cache_length > limit:
        raise ExportError(
            f"the decoder has {limit} positions, fewer than cache_length={cache_length}; lower it"
        )


def language_signatures(
    decoder: DecoderAdapter,
    prefill_lengths: Sequence[int],
    cache_length: int,
    with_embedder: bool = False,
) -> dict[str, Signature]:
    """All signatures of a decoder.

    Args:
        decoder: adapter of the decoder.
        prefill_lengths: rows of each prefill signature.
        cache_length: slots of the caches, S.
        with_embedder: whether `embed` stands in the same file, where it shares its table with
            tied logits.
    """
    caches = cache_specs(decoder, cache_length)
    result = {"embed": embed_signature(decoder)} if with_embedder else {}
    for length in prefill_lengths:
        inputs = {**_row_specs(decoder, length), **caches}
        result[f"prefill_{length}"] = Signature(_step_function(decoder, False), inputs)
    inputs = {**_row_specs(decoder, 1), **caches}
    result["decode"] = Signature(_step_function(decoder, True), inputs)
    return result


def is_tied(decoder: DecoderAdapter) -> bool:
    """Whether the table of embeddings makes the logits as well."""
    return bool(decoder.backbone.token_embedding.tie_weights)


def cache_specs(decoder: DecoderAdapter, cache_length: int) -> Specs:
    """Shapes of the caches by name."""
    heads, size = decoder.cache_heads
    layers = range(len(decoder.backbone.transformer_layers))
    shape = (1, heads, cache_length, size)
    return {f"kv_cache_{part}_{i}": (shape, "float32") for i in layers for part in "kv"}


def _row_specs(decoder: DecoderAdapter, length: int) -> Specs:
    return {
        "embeddings": ((1, length, decoder.hidden_dim), "float32"),
        "input_pos": ((length,), "int32"),
    }


def embed_signature(decoder: DecoderAdapter) -> Signature:
    """One token at a time: int32[1, 1] -> float32[1, 1, D]."""

    def embed(token_ids: Tensor) -> dict[str, Tensor]:
        return {"embeddings": decoder.embed(token_ids)}

    return Signature(embed, {"token_ids": ((1, 1), "int32")})


def _step_function(decoder: DecoderAdapter, with_logits: bool) -> Any:
    """Reads rows into the caches: the one function behind `prefill_N` and `decode`."""

    apart = isinstance(decoder.empty_caches(1, 1)[0], tuple)

    def step(embeddings: Tensor, input_pos: Tensor, **named: Tensor) -> dict[str, Tensor]:
        start = input_pos[0]
        caches = _to_keras(named, apart)
        visible = ops.ones((1, named["kv_cache_k_0"].shape[2]), "bool")
        positions = start + ops.arange(embeddings.shape[1], dtype="int32")[None]
        x = decoder.add_positions(embeddings, positions)
        hidden, caches = decoder.forward_cached(x, caches, start, visible)
        outputs = _to_litert(caches)
        if with_logits:
            # The converter would multiply the norm's scale into a copy of the embedding table.
            # The maximum changes no finite number, and it stands between the two.
            outputs["logits"] = decoder.logits(ops.maximum(hidden, LOWEST))
        return outputs

    return step


def _to_keras(named: Mapping[str, Tensor], apart: bool) -> Caches:
    """Named caches float[1, H, S, D] as the decoder's own.

    Args:
        named: `kv_cache_k_0`, `kv_cache_v_0`, ...
        apart: whether the decoder keeps keys and values as two tensors float[1, S, H, D] each,
            and not as one float[1, 2, S, H, D].
    """
    caches = []
    for i in range(len(named) // 2):
        pair = tuple(ops.transpose(named[f"kv_cache_{part}_{i}"], (0, 2, 1, 3)) for part in "kv")
        caches.append(pair if apart else ops.stack(pair, axis=1))
    return tuple(caches)


def _to_litert(caches: Caches) -> dict[str, Tensor]:
    """The inverse of `_to_keras`."""
    result = {}
    for i, cache in enumerate(caches):
        pair = cache if isinstance(cache, tuple) else (cache[:, 0], cache[:, 1])
        for part, values in zip("kv", pair, strict=True):
            result[f"kv_cache_{part}_{i}"] = ops.transpose(values, (0, 2, 1, 3))
    return result
