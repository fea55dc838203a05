"""Conversations to token ids and pixels, before they are packed into a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dl_techniques.errors import DLTechniquesError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import Message, Segment, render
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.packing import EncodedConversation
from dl_techniques.models.vlm.fast_vlm.prompt.records import Record
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import Template, as_transformers
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer


@dataclass(frozen=True)
class ConversationEncoder:
    """Chat template, tokenizer and picture geometry, one after the other.

    Attributes:
        tokenizer: Makes the ids.
        image_converter: Brings pictures to their size.
        num_image_tokens: Placeholders of one picture, T.
        system_prompt: Used where a conversation has none of its own; None or "" for none.
        template: Where pictures and newlines go, "apple" or "transformers".
    """

    tokenizer: FastVLMTokenizer
    image_converter: FastVLMImageConverter
    num_image_tokens: int
    system_prompt: str | None
    template: Template = "apple"

    def encode(
        self, records: Sequence[Record], learn: bool, names: Sequence[str]
    ) -> list[EncodedConversation]:
        """Encode conversations; their texts are tokenized in one go.

        Args:
            records: The conversations.
            learn: True for training (the last message is the answer), False for generation.
            names: What errors call each conversation; "" for nothing.
        """
        rendered, images = [], []
        for record, name in zip(records, names, strict=True):
            with _named(name):
                rendered.append(self._render(record, learn))
                images.append(self._read_images(record))
        ids = self._segment_ids([segment for segments in rendered for segment in segments])
        return [
            self._join(segments, [next(ids) for _ in segments], pictures)
            for segments, pictures in zip(rendered, images, strict=True)
        ]

    def encode_segments(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32[n] and learn mask bool[n] of a rendered conversation."""
        row = self._join(segments, list(self._segment_ids(segments)), self._no_images())
        return row.token_ids, row.learn

    def _render(self, record: Record, learn: bool) -> list[Segment]:
        return self.render(record.messages, len(record.images), self.system_prompt, not learn)

    def render(
        self,
        messages: Sequence[Message],
        num_images: int,
        system_prompt: str | None,
        answer_next: bool,
    ) -> list[Segment]:
        """A conversation in typed pieces: the tokenizer's marks around turns, our placing."""
        if self.template == "transformers":
            messages = as_transformers(messages, num_images)
        return render(
            messages, num_images, system_prompt, answer_next, self.tokenizer.chat_template
        )

    def _read_images(self, record: Record) -> np.ndarray:
        """The pictures of a conversation, uint8[pictures, S, S, 3]."""
        if not record.images:
            return self._no_images()
        return np.stack([self.image_converter.to_uint8(source) for source in record.images])

    def _no_images(self) -> np.ndarray:
        return np.zeros((0, *self.image_converter.image_size, 3), "uint8")

    def _segment_ids(self, segments: Sequence[Segment]) -> Iterator[list[int]]:
        """The token ids of each segment."""
        placeholders = [self.tokenizer.image_token_id] * self.num_image_tokens
        texts = [segment.text for segment in segments if segment.kind == "text"]
        plain = iter(self.tokenizer.tokenize_plain_batch(texts))
        for segment in segments:
            if segment.kind == "text":
                yield next(plain)
            elif segment.kind == "image":
                yield placeholders
            else:
                yield [self.tokenizer.vocabulary[segment.text]]

    def _join(
        self, segments: Sequence[Segment], ids: Sequence[list[int]], images: np.ndarray
    ) -> EncodedConversation:
        """One conversation out of its segments' ids."""
        token_ids = np.asarray([number for piece in ids for number in piece], "int32")
        learn = np.repeat([segment.learn for segment in segments], [len(piece) for piece in ids])
        positions = np.flatnonzero(token_ids == self.tokenizer.image_token_id).astype("int32")
        return EncodedConversation(token_ids, learn, positions, images)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the name of a conversation in front of what is wrong with it."""
    try:
        yield
    except DLTechniquesError as error:
        if not name:
            raise
        raise type(error)(f"{name}: {error}") from error
