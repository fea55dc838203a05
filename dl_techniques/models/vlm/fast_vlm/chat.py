"""A conversation about pictures that remembers: nothing is encoded or read a second time.

The chat keeps the features of its pictures and the decoder's cache. For every question the
whole conversation is rendered anew, as if it were asked at once, and compared token by token
with what the cache holds: the common beginning stays, only the rest is read. The answers are
therefore those of re-running the whole conversation, and the cost is that of the new question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import numpy as np
from keras import ops
from keras_hub.samplers import Sampler

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts, bucket, prompt_bucket
from dl_techniques.models.vlm.fast_vlm.answer.answers import Form
from dl_techniques.models.vlm.fast_vlm.answer.choice import Asked
from dl_techniques.models.vlm.fast_vlm.answer.generation import beams_cannot_stream
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowOptions
from dl_techniques.models.vlm.fast_vlm.answer.streaming import TextStream, TokenLoop
from dl_techniques.models.vlm.fast_vlm.causal_lm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.chat_window import Window, fitting
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import IMAGE, Message, Segment
from dl_techniques.models.vlm.fast_vlm.prompt.content import is_parts, read_messages, spoken
from dl_techniques.models.vlm.fast_vlm.prompt.records import image_list
from dl_techniques.text import check_text
from dl_techniques.typing import Tensor


class Chat:
    """A running conversation with a model.

    Args:
        model: `FastVLMCausalLM` with a preprocessor.
        system_prompt: Instead of the preprocessor's; "" for none.
        max_new_tokens: Most tokens of an answer; None for what the context leaves.
        sampler: Name or KerasHub sampler; None for the model's. Not beam search.
        seed: Seed of random samplers; None for the sampler's own.
        return_certainty: Whether the answers' streams tell how probably they are right.
        **options: What every answer is to obey, as `generate` has it: `stop`,
            `repetition_penalty`, `min_new_tokens`, ...

    Raises:
        SamplingError: the sampler, a number of it, the seed or an option means nothing.

    Attributes:
        messages: The conversation so far, `{"role", "content"}` each. A question that was
            answered with nothing is not kept; its pictures go with the next question.
        images: The pictures so far, as they were given.
        forgotten: How many turns have left, because the conversation did not fit the context.

    Example:
        >>> chat = Chat(model)  # doctest: +SKIP
        >>> print("".join(chat.ask("What is this?", images="cat.jpg")))  # doctest: +SKIP
        >>> print("".join(chat.ask("What colour is it?")))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: FastVLMCausalLM,
        system_prompt: str | None = None,
        max_new_tokens: int | None = None,
        sampler: str | Sampler | None = None,
        seed: int | None = None,
        return_certainty: bool = False,
        **options: Unpack[RowOptions],
    ) -> None:
        if model.preprocessor is None:
            raise ValueError("Chat needs a model with a preprocessor")
        self.model = model
        self._preprocessor = model.preprocessor
        self._system = model.preprocessor.system_prompt if system_prompt is None else system_prompt
        self._max_new_tokens = max_new_tokens
        self._return_certainty = return_certainty
        wanted = {**options, **Form(certainty=return_certainty).options}
        self._choice = Asked(sampler, seed, None, wanted).choice(1, model.sampler)
        if self._choice.beams:
            raise beams_cannot_stream()
        self._stop_ids = model.stop_ids("auto")
        self.reset()

    def reset(self) -> None:
        """Forgets the conversation and its pictures."""
        self.messages: list[Message] = []
        self.images: list[Any] = []
        self.forgotten = 0
        self._rows: list[Tensor] = []  # float[1, T, D] for every picture
        self._pending: list[Any] = []  # pictures of a question that got no answer
        self._read: list[int] = []  # the tokens whose keys and values are in the cache
        self._state: DecodeState | None = None
        self._turn: TextStream | None = None

    def ask(self, question: str | Sequence[Any], images: Any = None) -> TextStream:
        """Asks the next question.

        The answer becomes part of the conversation when it has ended, or, if it is not read to
        its end, with the next question: as far as it was read.

        Where the conversation no longer fits the context, its oldest turns leave, and `forgotten`
        counts them. The picture that was shown last stays.

        Args:
            question: The text. Pictures go in front of it, unless it has `<image>` marks. Or a list
                of parts, texts and pictures (`prompt.content`).
            images: New pictures, one or a list; earlier ones are remembered.

        Returns:
            An iterator over pieces of the answer.

        Raises:
            PromptError: a question that is empty or no text, a wrong number of pictures, or a
                question that alone does not fit the context. The conversation stays as it was.
            ImageError: a picture that cannot be read.
        """
        asked, found = self._asked(question, image_list(images))
        if self._turn is not None:
            self._turn.close()
        self._check_rows()
        new = [*self._pending, *found]
        asked = _with_marks(asked, len(new), len(self._pending))
        window = fitting(
            [*self.messages, asked],
            len(self.images) + len(new),
            self._tokens,
            self.model.context_length,
            self._max_new_tokens or 1,
        )
        limit, ids = self._limit(len(window.ids)), window.ids
        asked, old = window.messages[-1], [i for i in window.pictures if i < len(self.images)]
        if len(window.messages) == 1:  # what stays is shown with the question itself
            new, old = [*(self.images[i] for i in old), *new], []
        pictures = [self._preprocessor.image_converter.to_uint8(source) for source in new]
        self._leave(window, old)
        self._pending = []

        def start() -> TokenLoop:
            self._rows += self._encode(pictures)
            return self._loop(ids, limit)

        def end(stream: TextStream) -> None:
            self._remember(ids, stream)
            self._finish(asked, new, stream)

        turn = TextStream(start, self.model.answer_text(self._choice.rows[0]), end)
        if self._return_certainty:
            seen = [*self.images, *new]
            turn.certainty_by(lambda: self._certainty(spoken(asked), turn, seen))
        self._turn = turn
        return turn

    def __iter__(self) -> Iterator[Message]:
        """The messages so far."""
        return iter(self.messages)

    def _check_rows(self) -> None:
        """Refuses pictures that were encoded to another number of rows than the model's now."""
        count = self._preprocessor.num_image_tokens
        if self._rows and self._rows[0].shape[1] != count:
            raise PromptError(
                f"this chat's pictures have {self._rows[0].shape[1]} rows each, the model keeps "
                f"{count} now; call reset() and ask anew"
            )

    def _asked(self, question: Any, images: list[Any]) -> tuple[Message, list[Any]]:
        """The message of a question, and its pictures."""
        if not is_parts(question):
            return {"role": "user", "content": check_text(question, "the question")}, images
        (asked,), found = read_messages([{"role": "user", "content": question}], images)
        return asked, found

    def _leave(self, window: Window, old: list[int]) -> None:
        """Has turns leave, with all pictures but the `old` ones that stay."""
        self.messages = window.messages[:-1]
        self.forgotten += window.turns
        self.images = [self.images[i] for i in old]
        self._rows = [self._rows[i] for i in old]
        if window.turns:
            # All pictures have the same tokens: of what was read, nothing counts from the first
            # picture on that is another one now.
            same = next((n for n, i in enumerate(old) if n != i), len(old))
            read = np.asarray(self._read, "int32")
            places = np.flatnonzero(read == self._preprocessor.tokenizer.image_token_id)
            first = places[same * self._preprocessor.num_image_tokens :]
            self._read = self._read[: int(first[0])] if len(first) else self._read

    def _tokens(self, messages: Sequence[Message], num_images: int) -> list[int]:
        segments = self._preprocessor.render(messages, num_images, self._system)
        ids: list[int] = self._preprocessor.encode_segments(segments)[0].tolist()
        return ids

    def _limit(self, length: int) -> int:
        """Most tokens of the next answer."""
        context = self.model.context_length
        if context is None or length >= context:
            raise PromptError(
                f"the conversation has {length} tokens, which leaves no room for an answer in the "
                f"context of {context}; start a new chat"
            )
        return min(context - length, self._max_new_tokens or context)

    def _certainty(self, question: str, turn: TextStream, images: list[Any]) -> float:
        pictures = self._preprocessor.image_converter(images)
        return self.model.certainty_of_answer(question, turn.text, turn.logprobs, pictures)

    def _encode(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """Features of the new pictures, each float[1, T, D]."""
        if not pictures:
            return []
        scaled = [self._preprocessor.image_converter.scale_pixels(p) for p in pictures]
        rows = self.model.encode_images(np.stack(scaled)[:, None])
        return [rows[i : i + 1] for i in range(len(pictures))]

    def _loop(self, ids: list[int], limit: int) -> TokenLoop:
        """Reads what is new of the conversation, and begins the answer."""
        phases = self.model.phases
        keep = min(_common_length(self._read, ids), len(ids) - 1)
        # The phases consume the state: should they be interrupted, nothing counts as read.
        old, self._state, self._read = self._state, None, []
        if old is None or keep == 0:
            prompts, rows = self._unread(ids, 0)
            logits, state = phases.prefill(prompts, rows, bucket(len(ids) + limit))
        else:
            prompts, rows = self._unread(ids, keep)
            old = phases.grow(old, len(ids) + limit)
            logits, state = phases.extend(prompts, rows, old, keep)
        contents = [[np.asarray(ids, "int32")]]
        choose = self._choice.chooser(lambda: contents, self._stop_ids, phases.functions)
        limits = np.asarray([limit], "int32")
        return TokenLoop(phases, logits, state, choose, self._stop_ids, limits, rows)

    def _unread(self, ids: list[int], keep: int) -> tuple[Prompts, Tensor]:
        """The tokens from `keep` on, and the picture rows that belong to them."""
        tokens = np.asarray(ids, "int32")
        places = np.flatnonzero(tokens == self._preprocessor.tokenizer.image_token_id)
        size = prompt_bucket(len(ids) - keep)
        padded = np.zeros((1, size), "int32")
        padded[0, : len(ids) - keep] = tokens[keep:]
        per_image = self._preprocessor.num_image_tokens
        first = int(np.searchsorted(places, keep)) // per_image  # a picture may be cut in two
        rows, where = self._rows[first:], places[first * per_image :] - keep
        vision_indices = np.where(where >= 0, where, size).astype("int32")[None]
        embeddings = (
            ops.concatenate(rows, axis=1)
            if rows
            else np.zeros((1, 0, self.model.backbone.hidden_dim), "float32")
        )
        used = np.ones((1, len(rows)), bool)
        offsets = np.zeros(1, "int32")
        return Prompts(padded, offsets, len(ids) - keep, vision_indices, used), embeddings

    def _remember(self, ids: list[int], stream: TextStream) -> None:
        """Keeps the cache of a turn, if the model began with it."""
        state = stream.loop.state if stream.started else None
        if state is not None:
            # The last token was chosen but not read.
            self._state, self._read = state, [*ids, *stream.token_ids[:-1]]

    def _finish(self, asked: Message, images: list[Any], stream: TextStream) -> None:
        """Takes the turn into the conversation."""
        self._turn = None
        if not stream.text.strip():
            self._rows = self._rows[: len(self.images)]
            self._pending = images
            return
        self.messages += [asked, {"role": "assistant", "content": stream.text}]
        self.images += images


def _with_marks(asked: Message, num_images: int, pending: int) -> Message:
    """A question with a mark per picture, so that they stay at this turn.

    Args:
        asked: the message.
        num_images: of its pictures and of those that wait.
        pending: pictures that wait for a question; in front of one that is made of parts.
    """
    content = asked["content"]
    if not isinstance(content, str):
        front = [Segment(IMAGE, "image"), Segment("\n")] * pending
        return {**asked, "content": [*front, *content]}
    if num_images and IMAGE not in content:
        return {**asked, "content": f"{IMAGE}\n" * num_images + content}
    return asked


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that are equal."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
