"""A question as the engine takes it: tokens, pictures by content, and how to answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from dl_techniques.data.images import ImageSource
from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import Message
from dl_techniques.models.vlm.fast_vlm.prompt.content import read_messages

SECRET = os.urandom(16)
"""Key of the digests: nobody outside can look for two pictures with the same one."""


@dataclass(frozen=True)
class Question:
    """What is asked, ready to be read.

    Attributes:
        token_ids: int32[n]; T placeholders for each picture.
        pictured: bool[n]. Where the placeholders stand.
        contents: int64[n]. Equal where two prompts have the same token, or the same row of the
            same picture.
        pictures: uint8[S, S, 3] each.
        digests: of the pictures' pixels.
        settings: how the answer is chosen and written.
        limit: most tokens of the answer.
    """

    token_ids: np.ndarray
    pictured: np.ndarray
    contents: np.ndarray
    pictures: tuple[np.ndarray, ...]
    digests: tuple[bytes, ...]
    settings: RowSettings
    limit: int


def digest_of(picture: np.ndarray) -> bytes:
    """A digest of a picture's pixels."""
    return blake2b(picture.tobytes(), digest_size=16, key=SECRET).digest()


def make_question(
    model: Any,
    messages: Sequence[Message],
    pictures: Sequence[ImageSource] = (),
    settings: RowSettings | None = None,
    context: int | None = None,
) -> Question:
    """Checks a conversation and brings it into the form that the engine reads.

    Safe in any thread; this is where the time goes that pictures take before they are encoded.

    Args:
        model: a `FastVLMCausalLM` with a preprocessor.
        messages: `{"role", "content"}`, a content being a text or parts (`prompt.content`); the
            last message is the user's.
        pictures: for `<image>` marks and for parts without a source.
        settings: how to answer; greedy where nothing is said.
        context: most tokens of prompt and answer; None for the model's.

    Raises:
        PromptError: the conversation has no valid form, or leaves no room for an answer.
        ImageError: a picture cannot be read.

    Example:
        >>> messages = [{"role": "user", "content": "What is this?"}]
        >>> question = make_question(model, messages, ["cat.jpg"])  # doctest: +SKIP
    """
    preprocessor = model.preprocessor
    read, pictures = read_messages(messages, pictures)
    segments = preprocessor.render(read, len(pictures), preprocessor.system_prompt)
    ids = preprocessor.encode_segments(segments)[0]
    settings = settings or RowSettings()
    limit = limit_of(model, len(ids), settings.max_new_tokens, context)
    pixels = tuple(preprocessor.image_converter.to_uint8(picture) for picture in pictures)
    digests = tuple(digest_of(picture) for picture in pixels)
    pictured = ids == preprocessor.tokenizer.image_token_id
    contents = ids.astype("int64")
    contents[pictured] = _rows_by_content(digests, preprocessor.num_image_tokens)
    return Question(ids, pictured, contents, pixels, digests, settings, limit)


def limit_of(model: Any, length: int, wanted: int | None, context: int | None) -> int:
    """Most tokens of an answer to a prompt, as `generate` has it.

    Raises:
        PromptError: the prompt leaves no room.
    """
    limits = [limit for limit in (context, model.context_length) if limit is not None]
    longest = min(limits)
    if length >= longest:
        raise PromptError(
            f"the prompt has {length} tokens, which leaves no room for an answer in the context "
            f"of {longest}; shorten it or use fewer pictures"
        )
    wanted = model.max_new_tokens if wanted is None else wanted
    return min(longest - length, wanted or longest)


def _rows_by_content(digests: Sequence[bytes], per_picture: int) -> np.ndarray:
    """int64[pictures * T], all negative."""
    starts = [int.from_bytes(digest[:8], "little") >> 1 for digest in digests]
    rows = np.arange(per_picture, dtype="int64")
    numbers = [~((np.int64(start) + rows * 2654435761) & np.int64(2**63 - 1)) for start in starts]
    return np.concatenate(numbers) if numbers else np.zeros(0, "int64")
