"""How long a user waits for an answer in a warm process, phase by phase, and in a conversation.

Example:
    >>> from dl_techniques.evaluation.speed_answers import Turn, second_over_first
    >>> second_over_first([Turn(2.0, 0.1, 8), Turn(0.25, 0.1, 5)])
    0.125
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.evaluation.speed import as_numpy, median, timed

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class WarmTimes:
    """Phases of one answer in a process that has answered before; medians in seconds.

    Attributes:
        preprocess: picture and question to arrays.
        encode: picture to the encoder's features.
        project: features to rows of the decoder's width.
        prefill: prompt to the first logits.
        first_decode: one decoding step.
        first_token: question to the first text of the stream: the user's view of the above.
        tokens_per_second: of the tokens after the first.
        tokens: tokens of the answer.
    """

    preprocess: float
    encode: float
    project: float
    prefill: float
    first_decode: float
    first_token: float
    tokens_per_second: float | None
    tokens: int


def measure_once(model: keras.Model, inputs: dict[str, Any], max_new_tokens: int) -> WarmTimes:
    """Times one answer: each phase by itself, then the whole as a stream."""
    arrays, preprocess = timed(lambda: model.preprocessor.generate_preprocess(inputs))
    rows, encode, project = picture_phases(model, arrays["images"])
    (logits, state), prefill = timed(lambda: model.prefill(arrays, rows, max_new_tokens))
    token = np.argmax(as_numpy(logits), axis=-1).astype("int32")
    _, decode = timed(lambda: model.decode_step(token, state))
    answer = time_stream(model.stream(inputs, max_new_tokens=max_new_tokens))
    rate = None if answer.seconds_per_token is None else 1.0 / answer.seconds_per_token
    return WarmTimes(
        preprocess, encode, project, prefill, decode, answer.first_token, rate, answer.tokens
    )


def picture_phases(model: keras.Model, images: Any) -> tuple[Any, float, float]:
    """Encodes and projects the pictures of one prompt, each step compiled and timed by itself.

    Args:
        model: a `FastVLMCausalLM`.
        images: float[1, N, S, S, 3], as the preprocessor gives them.

    Returns:
        The rows float[1, N * T, D] that `encode_images` would give, and the seconds of both steps.
    """
    embedding, functions = model.backbone.image_embedding, model.phases.functions
    functions.refresh(model.backbone.variables)
    encoder = embedding.vision_encoder
    encode = functions.get("encoder alone", encoder, encoder)
    project = functions.get("projector alone", lambda f: _project(embedding, f), embedding)
    pictures = as_numpy(images)[0]
    features, encode_seconds = timed(lambda: encode(pictures))
    rows, project_seconds = timed(lambda: project(features))
    return rows, encode_seconds, project_seconds


def _project(embedding: keras.layers.Layer, features: Any) -> Any:
    """float[N, h, w, C] -> float[1, N * T, D]: what `ImageEmbedding` does after its encoder."""
    from keras import ops

    shape = ops.shape(features)
    rows = embedding.projector(ops.reshape(features, (-1, shape[1] * shape[2], shape[3])))
    rows = embedding.selector(rows)
    return ops.reshape(rows, (1, -1, rows.shape[-1]))


@dataclass(frozen=True)
class Turn:
    """One answer as it was read.

    Attributes:
        first_token: seconds from the question to the first text.
        seconds_per_token: of the tokens after it; None where there are none.
        tokens: tokens of the answer.
    """

    first_token: float
    seconds_per_token: float | None
    tokens: int


def time_stream(stream: Any) -> Turn:
    """Reads a `TextStream` to its end."""
    start = time.perf_counter()
    next(stream, "")
    first, early = time.perf_counter() - start, len(stream.token_ids)
    for _ in stream:
        pass
    decoding, tokens = time.perf_counter() - start - first, len(stream.token_ids)
    return Turn(first, decoding / (tokens - early) if tokens > early else None, tokens)


def measure_turns(
    model: keras.Model, picture: Any, questions: Sequence[str], max_new_tokens: int
) -> list[Turn]:
    """Asks one question after the other about one picture, in one conversation.

    Args:
        model: a `FastVLMCausalLM` with a preprocessor.
        picture: as `Chat.ask` takes it.
        questions: the turns.
        max_new_tokens: longest answer.

    Returns:
        A `Turn` for each question. Fewer where a turn got no text: the chat forgets such a turn,
        and the next one would read its picture again.
    """
    from dl_techniques.models.vlm.fast_vlm.chat import Chat

    chat = Chat(model, max_new_tokens=max_new_tokens)
    turns: list[Turn] = []
    for question in questions:
        stream = chat.ask(question, images=None if turns else picture)
        turns.append(time_stream(stream))
        if len(chat.messages) < 2 * len(turns):
            break
    return turns


def middle_turns(conversations: Sequence[Sequence[Turn]]) -> list[Turn]:
    """Turn by turn, the median of every figure; as long as the shortest conversation."""
    return [_middle(turns) for turns in zip(*conversations, strict=False)]


def second_over_first(turns: Sequence[Turn]) -> float | None:
    """Time to the first text of the second question over that of the first; None for one turn."""
    return turns[1].first_token / turns[0].first_token if len(turns) > 1 else None


def measure_warm(
    model: keras.Model,
    inputs: dict[str, Any],
    max_new_tokens: int,
    repeats: int,
    on_repeat: Callable[[int], None] | None = None,
) -> WarmTimes:
    """Medians over some answers of a model that has answered once before.

    Args:
        model: a `FastVLMCausalLM`.
        inputs: one prompt with its picture, as `generate` takes it.
        max_new_tokens: longest answer.
        repeats: number of answers that are timed.
        on_repeat: called with 1 after each.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"expected at least one repeat, got {repeats}")
    measure_once(model, inputs, max_new_tokens)  # compiles
    times = []
    for _ in range(repeats):
        times.append(measure_once(model, inputs, max_new_tokens))
        if on_repeat is not None:
            on_repeat(1)
    return middle_of(times)


def middle_of(times: Sequence[WarmTimes]) -> WarmTimes:
    """The median of every figure; None where one of the runs has no such figure."""
    middle: WarmTimes = _middle(times)
    return middle


def _middle(times: Sequence[Any]) -> Any:
    middle: dict[str, Any] = {}
    for name in asdict(times[0]):
        values = [getattr(t, name) for t in times]
        middle[name] = None if None in values else median(values)
    middle["tokens"] = int(middle["tokens"])
    return type(times[0])(**middle)
