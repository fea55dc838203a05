"""The three phases of an answer, each callable on its own: encode_images, prefill, decode_step.

Generation, streaming, chat, serving and export stand on these. Nothing is computed twice: the
pictures are encoded once, the prompt is read once, every further token costs one step.

Rows of unequal length are aligned at their *ends*: all rows then write the same cache slot in
the same step, which is what KerasHub's attention layers can do, and the padding in front of the
shorter rows is masked. Rotary positions are relative, so a row may start anywhere; learned
positions (OPT) are given per row. Lengths are rounded up to buckets, so that few shapes are
ever compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts, bucket
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.network.decoders import Caches, repeat_rows, take_rows
from dl_techniques.runtime.compile import FunctionCache
from dl_techniques.typing import Tensor

PICTURES_AT_ONCE = 8  # largest batch of the encoder: bounds its memory, and its number of shapes


@dataclass(frozen=True)
class DecodeState:
    """Where a batch of answers stands. A step consumes its state and returns the next one.

    Attributes:
        caches: One key/value cache per decoder layer, of `capacity` slots.
        offsets: int32[B]. Empty slots in front of every row.
        index: The slot that the next token will be written to.
        capacity: Number of slots of the caches.
    """

    caches: Caches
    offsets: np.ndarray
    index: int
    capacity: int


class Phases:
    """Compiled phases of one model.

    Args:
        backbone: The model.
        eager: Whether to run uncompiled.
    """

    def __init__(self, backbone: FastVLMBackbone, eager: bool = False) -> None:
        self.backbone = backbone
        self.decoder = backbone.decoder
        self.functions = FunctionCache(eager)

    def encode_images(self, images: Tensor, used: np.ndarray | None = None) -> Tensor:
        """Encodes and projects pictures: float[B, N, S, S, 3] -> float[B, N * T, D].

        Args:
            images: The pictures, as the image converter gives them.
            used: bool[B, N]. Slots marked False are not encoded; their rows are arbitrary.
        """
        self.functions.refresh(self.backbone.variables)
        batch, slots = np.shape(images)[:2]
        flags = np.ones((batch, slots), bool) if used is None else used
        if not flags.any():
            return np.zeros((batch, 0, self.decoder.hidden_dim), "float32")
        pictures = np.asarray(keras.ops.convert_to_numpy(images), "float32")[flags]
        rows = self._encode_flat(pictures)
        # Unused slots point at picture 0; no text position refers to them.
        source = np.where(flags, np.cumsum(flags).reshape(flags.shape) - 1, 0).astype("int32")
        rows = ops.take(rows, ops.convert_to_tensor(source.reshape(-1)), axis=0)
        return ops.reshape(rows, (batch, slots * rows.shape[1], rows.shape[2]))

    def _encode_flat(self, pictures: np.ndarray) -> Tensor:
        """float[M, S, S, 3] -> float[M, T, D], in batches of 1, 2, 4 or 8 pictures."""
        layer = self.backbone.image_embedding
        encode = self.functions.get("encode", layer.embed, layer, often=True)
        parts = []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            part = pictures[start : start + PICTURES_AT_ONCE]
            size = 1 << (len(part) - 1).bit_length()
            padding = np.repeat(part[:1], size - len(part), axis=0)
            parts.append(encode(np.concatenate([part, padding]))[: len(part)])
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)

    def prefill(
        self, prompts: Prompts, image_embeddings: Tensor, capacity: int
    ) -> tuple[Tensor, DecodeState]:
        """Reads the prompts and fills the caches.

        Args:
            prompts: From `align_prompts`.
            image_embeddings: float[B, M, D] from `encode_images`; M may be 0.
            capacity: Slots of the caches, at least the prompts' bucket.

        Returns:
            Logits float[B, vocabulary] of the next token of every row, and the state.
        """
        self.functions.refresh(self.backbone.variables)
        size = prompts.token_ids.shape[1]
        capacity = max(capacity, size)

        def run(ids: Tensor, offsets: Tensor, length: Tensor, rows: Tensor, places: Tensor) -> Any:
            caches = self.decoder.empty_caches(ops.shape(ids)[0], size)
            x = self._embed(ids, rows, places, 0, offsets)
            hidden, caches = self.decoder.forward_cached(x, caches, 0, _mask(offsets, size))
            return self._last_logits(hidden, length), self.decoder.grow_caches(
                caches, capacity - size
            )

        function = self.functions.get(("prefill", size, capacity), run, self.backbone.text_backbone)
        places = prompts.vision_indices[:, : image_embeddings.shape[1]]
        logits, caches = function(
            prompts.token_ids, prompts.offsets, prompts.length, image_embeddings, places
        )
        return logits, DecodeState(caches, prompts.offsets, prompts.length, capacity)

    def extend(
        self, prompts: Prompts, image_embeddings: Tensor, state: DecodeState, start: int
    ) -> tuple[Tensor, DecodeState]:
        """Reads more of a single running conversation, from slot `start` on.

        Args:
            prompts: The new tokens, one row; `vision_indices` count from their first token.
            image_embeddings: float[1, M, D]; M may be 0.
            state: The state so far; slots from `start` on are overwritten. Consumed.
            start: Number of tokens already read that stay.

        Returns:
            As `prefill`.
        """
        if len(state.offsets) != 1 or state.offsets[0] != 0:
            raise ValueError(f"extend() takes one row, got a state of {len(state.offsets)} rows")
        state = self.grow(state, start + prompts.token_ids.shape[1])
        capacity = state.capacity

        def run(
            ids: Tensor, index: Tensor, length: Tensor, rows: Tensor, places: Tensor, caches: Caches
        ) -> Any:
            offsets = ops.zeros((1,), "int32")
            x = self._embed(ids, rows, places, index, offsets)
            mask = _mask(offsets, capacity)
            hidden, caches = self.decoder.forward_cached(x, caches, index, mask)
            return self._last_logits(hidden, length), caches

        function = self.functions.get(
            ("extend", capacity), run, self.backbone.text_backbone, donate=(5,)
        )
        places = prompts.vision_indices[:, : image_embeddings.shape[1]]
        logits, caches = function(
            prompts.token_ids, start, prompts.length, image_embeddings, places, state.caches
        )
        return logits, replace(state, caches=caches, index=start + prompts.length)

    def decode_step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Reads one token per row.

        Args:
            tokens: int[B].
            state: Consumed: on backends that update in place its caches are gone afterwards.

        Returns:
            Logits float[B, vocabulary] of the next token, and the next state.

        Raises:
            PromptError: the caches are full.
        """
        if state.index >= state.capacity:
            raise PromptError(f"the cache is full: all {state.capacity} slots are taken")
        capacity = state.capacity  # the compiled function must not keep the state alive

        def run(tokens: Tensor, offsets: Tensor, index: Tensor, caches: Caches) -> Any:
            ids = ops.cast(tokens, "int32")[:, None]
            x = self.decoder.embed(ids)
            x = self.decoder.add_positions(x, index - offsets[:, None])
            mask = _mask(offsets, capacity)
            hidden, caches = self.decoder.forward_cached(x, caches, index, mask)
            return self.decoder.logits(hidden)[:, 0], caches

        alone = len(state.offsets) == 1
        function = self.functions.get(
            ("decode", capacity, alone),
            run,
            self.backbone.text_backbone,
            donate=(3,),
            often=True,
            alone=alone,
        )
        logits, caches = function(tokens, state.offsets, state.index, state.caches)
        return logits, replace(state, caches=caches, index=state.index + 1)

    def repeat_rows(self, state: DecodeState, repeats: int) -> DecodeState:
        """Every row `repeats` times, next to each other (for beams)."""
        repeat = self.functions.get(("repeat", repeats), lambda c: repeat_rows(c, repeats))
        offsets = np.repeat(state.offsets, repeats)
        return replace(state, caches=repeat(state.caches), offsets=offsets)

    def take_rows(self, state: DecodeState, rows: np.ndarray) -> DecodeState:
        """Row i becomes the old row `rows[i]`. Consumes the state."""
        take = self.functions.get("take", lambda r, c: take_rows(c, r), donate=(1,))
        caches = take(rows.astype("int32"), state.caches)
        return replace(state, caches=caches, offsets=state.offsets[rows])

    def grow(self, state: DecodeState, capacity: int) -> DecodeState:
        """The state with room for at least `capacity` slots."""
        if capacity <= state.capacity:
            return state
        capacity = bucket(capacity)
        slots = capacity - state.capacity
        pad = self.functions.get(("grow", slots), lambda c: self.decoder.grow_caches(c, slots))
        return replace(state, caches=pad(state.caches), capacity=capacity)

    def _embed(
        self, ids: Tensor, rows: Tensor, places: Tensor, start: Tensor | int, offsets: Tensor
    ) -> Tensor:
        """Embeddings of a prompt with its pictures and positions: float[B, P, D]."""
        x = self.backbone.image_splice(self.decoder.embed(ids), rows, places)
        positions = start + ops.arange(ops.shape(ids)[1], dtype="int32")[None] - offsets[:, None]
        # Padding has no position; any valid one will do.
        limit = self.decoder.max_positions
        positions = ops.maximum(positions, 0)
        positions = positions if limit is None else ops.minimum(positions, limit - 1)
        return self.decoder.add_positions(x, positions)

    def _last_logits(self, hidden: Tensor, length: Tensor) -> Tensor:
        """Logits of slot `length - 1` only: float[B, P, D] -> float[B, vocabulary]."""
        shape = (ops.shape(hidden)[0], 1, hidden.shape[-1])
        last = ops.slice(hidden, (0, length - 1, 0), shape)
        return self.decoder.logits(last)[:, 0]


def _mask(offsets: Tensor, slots: int) -> Tensor:
    """bool[B, slots]: True from every row's first token on. What is to come, causality hides."""
    return ops.arange(slots, dtype="int32")[None] >= offsets[:, None]
