"""generate() and stream(): from what a user asks to texts, over the phases.

    inputs -> generate_preprocess -> encode_images -> prefill -> decode_step ... -> text

Mixed into `FastVLMCausalLM`; kept apart so that the way reads top to bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras_hub
import numpy as np
from keras_hub.samplers import Sampler

from dl_techniques.errors import PromptError, SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts, align_prompts, bucket
from dl_techniques.models.vlm.fast_vlm.answer.beam import beam_search
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState, Phases
from dl_techniques.models.vlm.fast_vlm.answer.requests import (
    Request,
    Seed,
    StopIds,
    batches_of,
    is_single,
    limits_of,
    pad_rows,
    stop_ids_of,
)
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import check_seed
from dl_techniques.models.vlm.fast_vlm.answer.sampling import (
    RowRandom,
    TokenChooser,
    draws,
    get_sampler,
    row_keys,
    seed_of,
)
from dl_techniques.models.vlm.fast_vlm.answer.streaming import TextStream, TokenLoop
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.typing import Tensor


class GenerationMixin:
    """The generating half of `FastVLMCausalLM`."""

    backbone: FastVLMBackbone
    preprocessor: Any
    sampler: Sampler
    run_eagerly: bool
    max_new_tokens: int | None

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

    # The three phases, for those who drive them by hand.

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

    # From questions to answers.

    def generate(
        self,
        inputs: Tensor,
        max_length: int | None = None,
        stop_token_ids: StopIds = "auto",
        strip_prompt: bool = True,
        *,
        max_new_tokens: int | None = None,
        sampler: str | Sampler | None = None,
        seed: Seed = None,
    ) -> Any:
        """Answers questions about pictures.

        As in KerasHub, with one other default: only the answer is returned, for a prompt is
        mostly placeholders of pictures. A row's answer never depends on the other rows.

        Args:
            inputs: A question, `{"prompts": ..., "images": ...}`, a conversation
                `{"messages": ..., "images": ...}`, a list of these, or a `tf.data.Dataset` of
                batches. Without a preprocessor: the arrays that `generate_preprocess` makes.
            max_length: Most tokens of prompt and answer together. Defaults to the
                preprocessor's `sequence_length`.
            stop_token_ids: Tokens that end an answer; `"auto"` for the tokenizer's, None for none.
            strip_prompt: False to get the prompt's text in front of the answer.
            max_new_tokens: Most tokens of an answer. Defaults to what `max_length` leaves, or,
                where that is not given either, to the model's own `max_new_tokens`.
            sampler: Name or KerasHub sampler. Defaults to the one given to `compile`. At
                temperature 0 any of them is greedy; a k above the vocabulary is all of it.
            seed: Seed of random samplers, or one per prompt. Defaults to the sampler's own; a
                sampler without one draws anew every time.

        Returns:
            A str for a single prompt, else a list of str. Without a preprocessor: a dict of
            `token_ids` int32[B, L] and `padding_mask` bool[B, L], padded on the right.

        Raises:
            PromptError: a prompt that is too long, empty, or with a wrong number of pictures.
            ImageError: a picture that cannot be read.
            SamplingError: a sampler, a number of it or a seed that means nothing.
            NonFiniteError: the model computes NaN or infinities; says where they begin.
        """
        results: list[Any] = []
        for batch in batches_of(inputs):
            request = self._request(
                batch, max_length, stop_token_ids, max_new_tokens, sampler, seed
            )
            results.append(self._output(request, self._answer(request), strip_prompt))
        if self.preprocessor is None:
            return results[0]
        texts = [text for batch in results for text in batch]
        return texts[0] if is_single(inputs) else texts

    def stream(
        self,
        inputs: Tensor,
        max_length: int | None = None,
        stop_token_ids: StopIds = "auto",
        *,
        max_new_tokens: int | None = None,
        sampler: str | Sampler | None = None,
        seed: Seed = None,
    ) -> TextStream:
        """Answers one prompt piece by piece.

        The prompt is checked at once; the model starts when the first piece is asked for.

        Args:
            inputs: One prompt, as for `generate`; the other arguments as well.

        Returns:
            An iterator over pieces of text that joined are what `generate` returns. Its
            `token_ids` are the tokens so far.

        Raises:
            PromptError: more than one prompt, or a wrong one.
            SamplingError: as `generate`; also for beam search.
            NonFiniteError: while reading, as `generate`.
            ValueError: the model has no preprocessor.

        Example:
            >>> for piece in model.stream({"prompts": "What?", "images": path}):  # doctest: +SKIP
            ...     print(piece, end="", flush=True)
        """
        if self.preprocessor is None:
            raise ValueError("stream() needs a preprocessor to make text; use the phases instead")
        request = self._request(inputs, max_length, stop_token_ids, max_new_tokens, sampler, seed)
        if len(request.limits) != 1:
            raise PromptError(f"stream() takes one prompt, got {len(request.limits)}")
        self._refuse_beams(request.sampler)
        return TextStream(lambda: self._loop(request), self._detokenize)

    def _request(
        self,
        batch: Any,
        max_length: int | None,
        stop_token_ids: StopIds,
        max_new_tokens: int | None,
        sampler: str | Sampler | None,
        seed: Seed,
    ) -> Request:
        chosen = get_sampler(self.sampler if sampler is None else sampler)
        inputs = batch
        if self.preprocessor is not None:
            inputs = self.preprocessor.generate_preprocess(batch, sequence_length=max_length)
        prompts = self._align(inputs)
        longest = np.shape(inputs["token_ids"])[1]
        positions = self.backbone.decoder.max_positions
        longest = longest if positions is None else min(longest, positions)
        if max_new_tokens is None and max_length is None:
            max_new_tokens = self.max_new_tokens
        limits = limits_of(prompts.lengths, longest, max_new_tokens)
        seed = check_seed(seed_of(chosen) if seed is None else seed, len(limits))
        return Request(inputs, prompts, limits, self.stop_ids(stop_token_ids), chosen, seed)

    def _align(self, inputs: Mapping[str, Any]) -> Prompts:
        return align_prompts(inputs, self.backbone.num_image_tokens or 1)

    def stop_ids(self, stop_token_ids: StopIds = "auto") -> tuple[int, ...]:
        """The tokens that end an answer; `"auto"` for those of the tokenizer.

        Raises:
            PromptError: `"auto"` without a preprocessor to ask, or anything but token ids.
        """
        return stop_ids_of(self.preprocessor, stop_token_ids)

    def _prefilled(self, request: Request) -> tuple[Tensor, DecodeState, Tensor]:
        """The first two phases: logits, state, and the pictures' features."""
        prompts = request.prompts
        rows = self.phases.encode_images(request.inputs["images"], prompts.used)
        capacity = bucket(prompts.length + int(request.limits.max()))
        return *self.phases.prefill(prompts, rows, capacity), rows

    def _chooser(self, request: Request) -> TokenChooser:
        randomness = None
        if draws(request.sampler):
            randomness = RowRandom(row_keys(request.seed, request.contents()))
        return TokenChooser(request.sampler, randomness, self.phases.functions)

    def _loop(self, request: Request) -> TokenLoop:
        logits, state, features = self._prefilled(request)
        chooser = self._chooser(request)
        return TokenLoop(
            self.phases, logits, state, chooser, request.stop_ids, request.limits, features
        )

    def _answer(self, request: Request) -> list[list[int]]:
        """The new tokens of every row."""
        if not isinstance(request.sampler, keras_hub.samplers.BeamSampler):
            return self._loop(request).collect()
        logits, state, features = self._prefilled(request)
        return beam_search(
            self.phases, logits, state, request.sampler, request.stop_ids, request.limits, features
        )

    def _output(self, request: Request, answers: list[list[int]], strip_prompt: bool) -> Any:
        """Texts, or padded arrays where there is no preprocessor."""
        rows = answers if strip_prompt else request.with_prompts(answers)
        padded = pad_rows(rows, np.shape(request.inputs["token_ids"])[1])
        if self.preprocessor is None:
            return padded
        return self.preprocessor.generate_postprocess(padded)

    def _detokenize(self, ids: Sequence[int]) -> str:
        text: str = self.preprocessor.tokenizer.detokenize(list(ids), skip_special_tokens=True)
        return text

    @staticmethod
    def _refuse_beams(sampler: Sampler) -> None:
        if isinstance(sampler, keras_hub.samplers.BeamSampler):
            raise SamplingError("beam search has no answer before its end: use generate()")
