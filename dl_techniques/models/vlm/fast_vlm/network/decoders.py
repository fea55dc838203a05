"""Adapters: any of KerasHub's text decoders, run from embeddings, with one cache per layer.

A KerasHub backbone maps token ids to hidden states. A vision-language model needs the same
network from *embeddings* (the rows of the pictures are not tokens), and it needs the key/value
cache of each layer on its own. Everything for that is public on the backbones; only the names
of a few arguments and the shapes of the caches differ. An adapter hides those differences and
owns no weights.

Cache shapes, for one layer, `S` slots, `H` key/value heads of `D` numbers:

| decoder | cache |
|---|---|
| Qwen, Qwen3, Llama, Llama3, Gemma3 | `(float[B, S, H, D], float[B, S, H, D])` |
| Phi3, OPT, and Qwen or Qwen3 with a sliding window | `float[B, 2, S, H, D]` |

Reference: the call signatures of the decoder layers of keras-hub 0.32.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops

from dl_techniques.layers.dense import project_to_vocabulary

# Registered with Keras by being imported: a saved model may hold one of them.
from dl_techniques.models.vlm.fast_vlm.network import corrected as corrected
from dl_techniques.models.vlm.fast_vlm.network.grouped_attention import (
    forward_layers,
    forward_rows,
)
from dl_techniques.typing import Tensor

LayerCache = Any
NO_WINDOW = 32768  # KerasHub's window where Qwen3 names none: longer than any cache here
Caches = tuple[LayerCache, ...]


class DecoderAdapter:
    """Runs a KerasHub decoder from embeddings, through the layers' own calls.

    Args:
        backbone: keras_hub.models.Backbone. The decoder; its layers are called, not copied.

    Example:
        >>> import keras_hub
        >>> qwen = keras_hub.models.QwenBackbone(
        ...     vocabulary_size=64, num_layers=1, num_query_heads=2, num_key_value_heads=1,
        ...     hidden_dim=8, intermediate_dim=16)
        >>> adapt(qwen).hidden_dim
        8
    """

    cache_argument = "self_attention_cache"
    index_argument = "self_attention_cache_update_index"
    mask_argument = "decoder_padding_mask"

    def __init__(self, backbone: keras_hub.models.Backbone) -> None:
        self.backbone = backbone

    @property
    def hidden_dim(self) -> int:
        """Width of the embeddings."""
        return int(self.backbone.hidden_dim)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the decoder's positions allow, or None where there is no limit."""
        return None

    @property
    def cache_heads(self) -> tuple[int, int]:
        """Number of key/value heads and numbers per head."""
        b = self.backbone
        # A number of its own in Qwen3 and Gemma3: their heads need not divide the width.
        size = getattr(b, "head_dim", None) or b.hidden_dim // b.num_query_heads
        return int(b.num_key_value_heads), int(size)

    @property
    def compute_dtype(self) -> str:
        """Data type the layers compute in, hence that of the caches."""
        return str(self.backbone.transformer_layers[0].compute_dtype)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Embeds tokens: int[B, L] -> float[B, L, D], before positions are added."""
        return self.backbone.token_embedding(token_ids)

    def add_positions(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Adds absolute positions where the decoder has any; rotary decoders have none.

        Args:
            x: float[B, L, D], text and pictures already spliced.
            positions: int[B, L], or None for 0, 1, 2, ...

        Returns:
            float[B, L, D].
        """
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """float[B, L, D] -> float[B, L, vocabulary]."""
        return project_to_vocabulary(self.backbone.token_embedding, hidden)

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """All layers without a cache: float[B, L, D], bool[B, L] -> float[B, L, D]."""
        for layer in self.backbone.transformer_layers:
            x = layer(x, **{self.mask_argument: padding_mask})
        return self.backbone.layer_norm(x)

    def forward_cached(
        self, x: Tensor, caches: Caches, index: Tensor | int, slot_mask: Tensor
    ) -> tuple[Tensor, Caches]:
        """All layers over new positions, reading and writing the caches.

        Args:
            x: float[B, L, D]. Embeddings of the slots `index .. index + L`.
            caches: one cache per layer, of `S >= index + L` slots.
            index: scalar int, the first slot that is written.
            slot_mask: bool[B, S]. False where a slot holds padding.

        Returns:
            Hidden states float[B, L, D] after the final norm, and the new caches.
        """
        new = []
        for layer, cache in zip(self.backbone.transformer_layers, caches, strict=True):
            x, cache = layer(
                x,
                **{
                    self.mask_argument: slot_mask,
                    self.cache_argument: cache,
                    self.index_argument: index,
                },
            )
            new.append(cache)
        return self.backbone.layer_norm(x), tuple(new)

    def empty_caches(self, batch_size: Any, length: int) -> Caches:
        """Zero caches of `length` slots for every layer."""
        return tuple(
            self._empty_cache(batch_size, length) for _ in self.backbone.transformer_layers
        )

    def _empty_cache(self, batch_size: Any, length: int) -> LayerCache:
        heads, size = self.cache_heads
        return ops.zeros((batch_size, 2, length, heads, size), dtype=self.compute_dtype)

    def grow_caches(self, caches: Caches, slots: int) -> Caches:
        """Appends `slots` empty slots to every cache."""
        if slots == 0:
            return caches
        return tuple(ops.pad(c, [(0, 0), (0, 0), (0, slots), (0, 0), (0, 0)]) for c in caches)


class PairAdapter(DecoderAdapter):
    """Keeps keys and values apart: a cache is a pair of float[B, S, H, D]."""

    def _empty_cache(self, batch_size: Any, length: int) -> LayerCache:
        shape = (batch_size, length, *self.cache_heads)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)

    def grow_caches(self, caches: Caches, slots: int) -> Caches:
        """Appends `slots` empty slots to every cache."""
        if slots == 0:
            return caches
        width = [(0, 0), (0, slots), (0, 0), (0, 0)]
        return tuple((ops.pad(k, width), ops.pad(v, width)) for k, v in caches)


class GroupedAdapter(PairAdapter):
    """Qwen, Qwen3, Llama and Llama3: cached through `grouped_attention`."""

    def forward_cached(
        self, x: Tensor, caches: Caches, index: Tensor | int, slot_mask: Tensor
    ) -> tuple[Tensor, Caches]:
        """All layers over new positions, as in the base class."""
        layers = self.backbone.transformer_layers
        x, caches = forward_layers(layers, x, caches, index, slot_mask)
        return self.backbone.layer_norm(x), caches

    def forward_rows(
        self, x: Tensor, caches: Caches, rows: Tensor | None, positions: Tensor, slots: Tensor
    ) -> tuple[Tensor, Caches]:
        """All layers over new positions, every row at a place of its own: for answers that join
        and leave a running batch.

        Args:
            x: float[B, L, D].
            caches: one cache per layer, of R rows; may be overwritten.
            rows: int[B], which rows of the caches; None for all, in order.
            positions: int[B, L]. A position sees the slots up to its own.
            slots: int[B, L]. The slots that are written.

        Returns:
            Hidden states float[B, L, D] after the final norm, and the new caches.
        """
        layers = self.backbone.transformer_layers
        x, caches = forward_rows(layers, x, caches, rows, positions, slots)
        return self.backbone.layer_norm(x), caches


class Phi3Adapter(DecoderAdapter):
    """Phi3 names its cache arguments differently and knows its longest sequence."""

    cache_argument = "attention_cache"
    index_argument = "attention_cache_update_index"

    @property
    def max_positions(self) -> int | None:
        """`max_sequence_length` of the backbone."""
        return int(self.backbone.max_sequence_length)


class OPTAdapter(DecoderAdapter):
    """OPT has learned absolute positions, added after the pictures are spliced in."""

    @property
    def max_positions(self) -> int | None:
        """Length of the table of positions."""
        return int(self.backbone.max_sequence_length)

    @property
    def cache_heads(self) -> tuple[int, int]:
        """Every head has its own keys and values."""
        b = self.backbone
        return int(b.num_heads), int(b.hidden_dim // b.num_heads)

    def add_positions(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Adds the learned positions."""
        table = self.backbone.embeddings.position_embedding
        return x + (table(x) if positions is None else table(x, positions=positions))


class Gemma3Adapter(PairAdapter):
    """Gemma3 scales its text embeddings and keeps keys and values apart."""

    cache_argument = "cache"
    index_argument = "cache_update_index"
    mask_argument = "padding_mask"

    def embed(self, token_ids: Tensor) -> Tensor:
        """Embeds and multiplies by sqrt(D); the rows of pictures are not scaled."""
        x = self.backbone.token_embedding(token_ids)
        return x * ops.cast(self.hidden_dim**0.5, x.dtype)


_ADAPTERS: tuple[tuple[type, type[DecoderAdapter]], ...] = (
    (keras_hub.models.QwenBackbone, GroupedAdapter),
    (keras_hub.models.Qwen3Backbone, GroupedAdapter),
    (keras_hub.models.LlamaBackbone, GroupedAdapter),  # Llama3 derives from it
    (keras_hub.models.Phi3Backbone, Phi3Adapter),
    (keras_hub.models.OPTBackbone, OPTAdapter),
    (keras_hub.models.Gemma3Backbone, Gemma3Adapter),
)


def adapt(backbone: keras_hub.models.Backbone) -> DecoderAdapter:
    """Returns the adapter for a decoder.

    Args:
        backbone: one of keras_hub's Qwen, Qwen3, Llama, Llama3, Phi3, OPT, Gemma3 backbones.

    Raises:
        TypeError: the decoder is none of them, or a Gemma3 that has a vision part of its own.
    """
    for kind, adapter in _ADAPTERS:
        if isinstance(backbone, kind):
            if getattr(backbone, "vision_encoder", None) is not None:
                raise TypeError(
                    f"{type(backbone).__name__} has a vision encoder of its own; build it with "
                    "vision_encoder=None"
                )
            return DecoderAdapter(backbone) if _slides(backbone) else adapter(backbone)
    known = ", ".join(kind.__name__ for kind, _ in _ADAPTERS)
    raise TypeError(
        f"no adapter for {type(backbone).__name__}; text_backbone must be one of {known}"
    )


def _slides(backbone: keras_hub.models.Backbone) -> bool:
    """Whether a Qwen's attention sees a window only, which `grouped_attention` does not know."""
    if isinstance(backbone, keras_hub.models.Qwen3Backbone):
        return (backbone.sliding_window_size or NO_WINDOW) < NO_WINDOW
    if isinstance(backbone, keras_hub.models.QwenBackbone):
        return bool(backbone.use_sliding_window_attention)
    return False  # Gemma3 slides too, in its own layers' calls


def repeat_rows(caches: Caches, repeats: int) -> Caches:
    """Repeats every row of the caches, each `repeats` times in place."""
    return keras.tree.map_structure(lambda c: ops.repeat(c, repeats, axis=0), caches)


def take_rows(caches: Caches, rows: Tensor) -> Caches:
    """Reorders the rows of the caches: row i becomes the old row `rows[i]`."""
    return keras.tree.map_structure(lambda c: ops.take(c, rows, axis=0), caches)
