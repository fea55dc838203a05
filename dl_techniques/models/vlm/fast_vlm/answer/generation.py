"""generate() and stream(): from what a user asks to texts, over the phases.

    inputs -> generate_preprocess -> encode_images -> prefill -> decode_step ... -> text

Mixed into `FastVLMCausalLM`; kept apart so that the way reads top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from keras_hub.samplers import BeamSampler, Sampler

from dl_techniques.errors import PromptError, SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import bucket
from dl_techniques.models.vlm.fast_vlm.answer.answers import Answer, finish_reason, logprob_arrays
from dl_techniques.models.vlm.fast_vlm.answer.beam import beam_search
from dl_techniques.models.vlm.fast_vlm.answer.choice import Asked, Seed
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState
from dl_techniques.models.vlm.fast_vlm.answer.phases_by_hand import PhasesMixin
from dl_techniques.models.vlm.fast_vlm.answer.requests import (
    Request,
    StopIds,
    batches_of,
    is_single,
    limits_of,
    pad_rows,
    stop_ids_of,
)
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import TokenLogprob
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowOptions, RowSettings
from dl_techniques.models.vlm.fast_vlm.answer.streaming import TextStream, TokenLoop
from dl_techniques.typing import Tensor

Settings = RowSettings | Sequence[RowSettings] | None


class GenerationMixin(PhasesMixin):
    """The generating half of `FastVLMCausalLM`."""

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
        settings: Settings = None,
        return_logprobs: int | None = None,
        **options: Unpack[RowOptions],
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
            settings: `RowSettings` instead of a sampler, or one per prompt, taken as they are.
            return_logprobs: Number of the likeliest tokens whose log-probabilities are returned
                for every token of the answer, beside its own; 0 for its own alone.
            **options: What every answer of the call is to obey, as `RowSettings` has it:
                `temperature`, `top_k`, `top_p`, `stop`, `min_new_tokens`, `repetition_penalty`,
                `no_repeat_ngram_size`, `presence_penalty`, `frequency_penalty`.

        Returns:
            A str for a single prompt, else a list of str; of `Answer` where `return_logprobs` is
            given. Without a preprocessor: a dict of `token_ids` int32[B, L] and `padding_mask`
            bool[B, L], padded on the right; also `logprobs` float32[B, L], `top_tokens`
            int32[B, L, k] and `top_logprobs` float32[B, L, k].

        Raises:
            PromptError: a prompt that is too long, empty, or with a wrong number of pictures.
            ImageError: a picture that cannot be read.
            SamplingError: a sampler, a number of it, a seed or a setting that means nothing.
            NonFiniteError: the model computes NaN or infinities; says where they begin.
        """
        asked = _asked(sampler, seed, settings, options, return_logprobs)
        results: list[Any] = []
        for batch in batches_of(inputs):
            request = self._request(batch, max_length, stop_token_ids, max_new_tokens, asked)
            results.append(self._answered(request, strip_prompt, return_logprobs))
        if self.preprocessor is None:
            return results[0]
        answers = [answer for batch in results for answer in batch]
        return answers[0] if is_single(inputs) else answers

    def stream(
        self,
        inputs: Tensor,
        max_length: int | None = None,
        stop_token_ids: StopIds = "auto",
        *,
        max_new_tokens: int | None = None,
        sampler: str | Sampler | None = None,
        seed: Seed = None,
        settings: Settings = None,
        return_logprobs: int | None = None,
        **options: Unpack[RowOptions],
    ) -> TextStream:
        """Answers one prompt piece by piece.

        The prompt is checked at once; the model starts when the first piece is asked for.

        Args:
            inputs: One prompt, as for `generate`; the other arguments as well.

        Returns:
            An iterator over pieces of text that joined are what `generate` returns. Its
            `token_ids` are the tokens so far, its `logprobs` what is known about them.

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
        asked = _asked(sampler, seed, settings, options, return_logprobs)
        request = self._request(inputs, max_length, stop_token_ids, max_new_tokens, asked)
        if len(request.limits) != 1:
            raise PromptError(f"stream() takes one prompt, got {len(request.limits)}")
        if request.choice.beams:
            raise beams_cannot_stream()
        return TextStream(lambda: self._loop(request), self.answer_text(request.choice.rows[0]))

    def answer_text(self, settings: RowSettings) -> AnswerText:
        """What makes the text of an answer that is written as the settings say, piece by piece.

        Args:
            settings: whose stop texts and least length are obeyed.
        """
        return AnswerText(self._detokenize, settings.stop, settings.min_new_tokens)

    def stop_ids(self, stop_token_ids: StopIds = "auto") -> tuple[int, ...]:
        """The tokens that end an answer; `"auto"` for those of the tokenizer.

        Raises:
            PromptError: `"auto"` without a preprocessor to ask, or anything but token ids.
        """
        return stop_ids_of(self.preprocessor, stop_token_ids)

    def _request(
        self,
        batch: Any,
        max_length: int | None,
        stop_token_ids: StopIds,
        max_new_tokens: int | None,
        asked: Asked,
    ) -> Request:
        asked.check()  # before the pictures are read
        inputs = batch
        if self.preprocessor is not None:
            inputs = self.preprocessor.generate_preprocess(batch, sequence_length=max_length)
        prompts = self._align(inputs)
        choice = asked.choice(len(prompts.offsets), self.sampler)
        if self.preprocessor is None and any(row.stop for row in choice.rows):
            raise SamplingError("stop texts need a preprocessor; give stop_token_ids instead")
        longest = np.shape(inputs["token_ids"])[1]
        positions = self.backbone.decoder.max_positions
        longest = longest if positions is None else min(longest, positions)
        own = self.max_new_tokens if max_length is None else None
        wanted = [
            next((n for n in (max_new_tokens, row.max_new_tokens, own) if n is not None), None)
            for row in choice.rows
        ]
        limits = limits_of(prompts.lengths, longest, wanted)
        return Request(inputs, prompts, limits, self.stop_ids(stop_token_ids), choice)

    def _prefilled(self, request: Request) -> tuple[Tensor, DecodeState, Tensor]:
        """The first two phases: logits, state, and the pictures' features."""
        prompts = request.prompts
        rows = self.phases.encode_images(request.inputs["images"], prompts.used)
        capacity = bucket(prompts.length + int(request.limits.max()))
        return *self.phases.prefill(prompts, rows, capacity), rows

    def _loop(self, request: Request) -> TokenLoop:
        logits, state, features = self._prefilled(request)
        chooser = request.choice.chooser(request.contents, request.stop_ids, self.phases.functions)
        return TokenLoop(
            self.phases, logits, state, chooser, request.stop_ids, request.limits, features
        )

    def _answered(self, request: Request, strip_prompt: bool, top: int | None) -> Any:
        """A batch's answers in the form that is returned."""
        texts = [self.answer_text(row) if row.stop else None for row in request.choice.rows]
        if isinstance(request.choice.sampler, BeamSampler):
            rows, logprobs = self._beams(request, request.choice.sampler), None
        else:
            loop = self._loop(request)
            rows = loop.collect(texts)
            logprobs = [loop.logprobs(i) for i in range(len(rows))] if top is not None else None
        if self.preprocessor is None:
            return self._arrays(request, rows, strip_prompt, logprobs, top)
        for text in texts:
            if text is not None:
                text.end()
        written = self._texts(request, rows, texts, strip_prompt)
        if logprobs is None:
            return written
        stopped = [None if text is None else text.stopped for text in texts]
        return [
            Answer(text, row, finish_reason(row, request.stop_ids, stop), known)
            for text, row, stop, known in zip(written, rows, stopped, logprobs, strict=True)
        ]

    def _beams(self, request: Request, sampler: BeamSampler) -> list[list[int]]:
        logits, state, features = self._prefilled(request)
        return beam_search(
            self.phases, logits, state, sampler, request.stop_ids, request.limits, features
        )

    def _texts(
        self,
        request: Request,
        answers: list[list[int]],
        texts: list[AnswerText | None],
        strip_prompt: bool,
    ) -> list[str]:
        """Texts of the answers' tokens; those that a stop text may have cut are there already."""
        length = np.shape(request.inputs["token_ids"])[1]
        rows = answers if strip_prompt else request.with_prompts(answers)
        plain = self.preprocessor.generate_postprocess(pad_rows(rows, length))
        if all(text is None for text in texts):
            return list(plain)
        prompts = [""] * len(rows)
        if not strip_prompt:
            none: list[list[int]] = [[] for _ in rows]
            fronts = pad_rows(request.with_prompts(none), length)
            prompts = self.preprocessor.generate_postprocess(fronts)
        return [
            whole if text is None else prompt + text.text
            for whole, prompt, text in zip(plain, prompts, texts, strict=True)
        ]

    @staticmethod
    def _arrays(
        request: Request,
        answers: list[list[int]],
        strip_prompt: bool,
        logprobs: list[list[TokenLogprob]] | None,
        top: int | None,
    ) -> dict[str, np.ndarray]:
        """Padded arrays, where there is no preprocessor to make texts."""
        length = np.shape(request.inputs["token_ids"])[1]
        rows = answers if strip_prompt else request.with_prompts(answers)
        arrays = pad_rows(rows, length)
        if logprobs is None:
            return arrays
        starts = [len(row) - len(answer) for row, answer in zip(rows, answers, strict=True)]
        return {**arrays, **logprob_arrays(logprobs, starts, length, top or 0)}

    def _detokenize(self, ids: Sequence[int]) -> str:
        text: str = self.preprocessor.tokenizer.detokenize(list(ids), skip_special_tokens=True)
        return text


def beams_cannot_stream() -> SamplingError:
    """The error of whoever wants an answer before its end."""
    return SamplingError("beam search has no answer before its end: use generate()")


def _asked(
    sampler: str | Sampler | None,
    seed: Seed,
    settings: Settings,
    options: RowOptions,
    return_logprobs: int | None,
) -> Asked:
    """The keywords of a call that say how to choose."""
    more = {} if return_logprobs is None else {"logprobs": return_logprobs}
    return Asked(sampler, seed, settings, {**options, **more})
