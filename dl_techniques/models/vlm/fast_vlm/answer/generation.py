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
from dl_techniques.models.vlm.fast_vlm.answer.answers import Form, answers_of, arrays_of
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
    questions_of,
    stop_ids_of,
)
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.rows.certainty import (
    KnowsItsCertainty,
    certainty_of,
)
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
        return_certainty: bool = False,
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
            return_certainty: Also return the probability that the answer is right
                (`rows.certainty`).
            **options: What every answer of the call is to obey, as `RowSettings` has it:
                `temperature`, `top_k`, `top_p`, `stop`, `min_new_tokens`, `repetition_penalty`,
                `no_repeat_ngram_size`, `presence_penalty`, `frequency_penalty`.

        Returns:
            A str for a single prompt, else a list of str; of `Answer` where one of the `return_`
            arguments is given. Without a preprocessor: a dict of `token_ids` int32[B, L] and
            `padding_mask` bool[B, L], padded on the right; also `logprobs` float32[B, L],
            `top_tokens` int32[B, L, k], `top_logprobs` float32[B, L, k] and `certainty` float32[B].

        Raises:
            PromptError: a prompt that is too long, empty, or with a wrong number of pictures.
            ImageError: a picture that cannot be read.
            SamplingError: a sampler, a number of it, a seed or a setting that means nothing.
            NonFiniteError: the model computes NaN or infinities; says where they begin.
        """
        form = Form(strip_prompt, return_logprobs, return_certainty)
        asked = Asked(sampler, seed, settings, {**options, **form.options})
        results: list[Any] = []
        for batch in batches_of(inputs):
            request = self._request(batch, max_length, stop_token_ids, max_new_tokens, asked)
            results.append(self._answered(request, form))
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
        return_certainty: bool = False,
        **options: Unpack[RowOptions],
    ) -> TextStream:
        """Answers one prompt piece by piece.

        The prompt is checked at once; the model starts when the first piece is asked for.

        Args:
            inputs: One prompt, as for `generate`; the other arguments as well.

        Returns:
            An iterator over pieces of text that joined are what `generate` returns. Its
            `token_ids` are the tokens so far, its `logprobs` what is known about them; at the end
            it has a `certainty`, if that was asked for.

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
        form = Form(True, return_logprobs, return_certainty)
        asked = Asked(sampler, seed, settings, {**options, **form.options})
        request = self._request(inputs, max_length, stop_token_ids, max_new_tokens, asked)
        if len(request.limits) != 1:
            raise PromptError(f"stream() takes one prompt, got {len(request.limits)}")
        if request.choice.beams:
            raise beams_cannot_stream()
        stream = TextStream(lambda: self._loop(request), self.answer_text(request.choice.rows[0]))
        if return_certainty:
            stream.certainty_by(
                lambda: self.certainty_of_answer(
                    request.questions[0], stream.text, stream.logprobs, request.pictures(0)
                )
            )
        return stream

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
        questions = [] if self.preprocessor is None else questions_of(batch)
        return Request(inputs, prompts, limits, self.stop_ids(stop_token_ids), choice, questions)

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

    def _answered(self, request: Request, form: Form) -> Any:
        """A batch's answers in the form that is returned."""
        texts = [self.answer_text(row) if row.stop else None for row in request.choice.rows]
        logprobs: list[list[TokenLogprob]] = []
        if isinstance(request.choice.sampler, BeamSampler):
            rows = self._beams(request, request.choice.sampler)
        else:
            loop = self._loop(request)
            rows = loop.collect(texts)
            logprobs = [loop.logprobs(i) for i in range(len(rows))]
        if self.preprocessor is None:
            return arrays_of(request, rows, logprobs, form, self.certainty_temperature)
        written = self._texts(request, rows, texts, form.strip_prompt)
        if not form.more_than_text:
            return written
        certainties: list[float | None] = [None] * len(rows)
        if form.certainty:
            certainties = [
                self.certainty_of_answer(request.questions[i], text, known, request.pictures(i))
                for i, (text, known) in enumerate(zip(written, logprobs, strict=True))
            ]
        return answers_of(request, rows, written, texts, logprobs, certainties)

    def certainty_of_answer(
        self,
        question: str,
        answer: str,
        logprobs: Sequence[TokenLogprob],
        pictures: np.ndarray,
    ) -> float:
        """How probable it is that an answer is right: asks the encoder first, if it can tell.

        Args:
            question: the last message of the user.
            answer: the model's text.
            logprobs: one a token of the answer.
            pictures: float[N, S, S, 3], as the encoder takes them.
        """
        encoder = self.backbone.vision_encoder
        told = None
        if isinstance(encoder, KnowsItsCertainty):
            told = encoder.answer_certainty(question, answer, pictures)
        return certainty_of(logprobs, self.certainty_temperature) if told is None else float(told)

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
        to_text = self.preprocessor.generate_postprocess
        rows = answers if strip_prompt else request.with_prompts(answers)
        plain = list(to_text(pad_rows(rows, request.length)))
        if all(text is None for text in texts):
            return plain
        fronts = [""] * len(rows)
        if not strip_prompt:
            none: list[list[int]] = [[] for _ in rows]
            fronts = to_text(pad_rows(request.with_prompts(none), request.length))
        return [
            whole if text is None else front + text.ended()
            for whole, front, text in zip(plain, fronts, texts, strict=True)
        ]

    def _detokenize(self, ids: Sequence[int]) -> str:
        text: str = self.preprocessor.tokenizer.detokenize(list(ids), skip_special_tokens=True)
        return text


def beams_cannot_stream() -> SamplingError:
    """The error of whoever wants an answer before its end."""
    return SamplingError("beam search has no answer before its end: use generate()")
