"""The phases as methods of the model, for those who drive them by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras_hub.samplers import Sampler

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts, align_prompts, bucket
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState, Phases
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.typing import Tensor


class PhasesMixin:
    """encode_images, prefill and decode_step of `FastVLMCausalLM`."""

    backbone: FastVLMBackbone
    preprocessor: Any
    sampler: Sampler
    run_eagerly: bool
    max_new_tokens: int | None
    certainty_temperature: float

    @property
    def phases(self) -> Phases:
        """The compiled phases, made when first needed."""
        phases: Phases | None = getattr(self, "_phases", None)
        if phases is None or phases.functions.eager != self.run_eagerly:
            phases = Phases(self.backbone, eager=self.run_eagerly)
            object.__setattr__(self, "_phases", phases)
        return phases

    @property
    def context_length(self) -> int | None:
        """Most tokens of prompt and answer together; None where nothing limits them."""
        limits = [self.backbone.decoder.max_positions]
        if self.preprocessor is not None:
            limits.append(self.preprocessor.sequence_length)
        known = [limit for limit in limits if limit is not None]
        return min(known) if known else None

    def encode_images(self, images: Tensor) -> Tensor:
        """Encodes and projects pictures.

        Args:
            images: float[B, N, S, S, 3] from the preprocessor.

        Returns:
            float[B, N * T, D], what `prefill` takes.
        """
        return self.phases.encode_images(images)

    def prefill(
        self,
        inputs: Mapping[str, Any],
        image_embeddings: Tensor | None = None,
        max_new_tokens: int = 256,
    ) -> tuple[Tensor, DecodeState]:
        """Reads a batch of prompts.

        Args:
            inputs: `token_ids`, `padding_mask`, `vision_indices` of `generate_preprocess`.
            image_embeddings: Of `encode_images`; None if no prompt has a picture.
            max_new_tokens: Room in the caches for that many further tokens.

        Returns:
            Logits float[B, vocabulary] of the next token of every row, and the state for
            `decode_step`.

        Raises:
            PromptError: pictures are placed in the prompts, but `image_embeddings` is None.
        """
        prompts = self._align(inputs)
        if image_embeddings is None:
            if prompts.used.any():
                raise PromptError(
                    "the prompts have pictures: pass image_embeddings=encode_images(images)"
                )
            shape = (len(prompts.offsets), 0, self.backbone.hidden_dim)
            image_embeddings = np.zeros(shape, "float32")
        capacity = bucket(prompts.length + max_new_tokens)
        return self.phases.prefill(prompts, image_embeddings, capacity)

    def decode_step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Reads one chosen token per row; returns the next logits and the next state.

        Args:
            tokens: int[B].
            state: Of `prefill` or of the step before. It is consumed.
        """
        return self.phases.decode_step(tokens, state)

    def _align(self, inputs: Mapping[str, Any]) -> Prompts:
        return align_prompts(inputs, self.backbone.num_image_tokens or 1)
