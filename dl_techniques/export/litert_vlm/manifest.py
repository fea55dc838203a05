"""`manifest.json`: everything that a host has to know beside the files.

| key | what |
|---|---|
| `files` | name of the tokenizer and of the file that holds each part |
| `picture` | how a photo becomes uint8[S, S, 3]: `size`, `mode`, `fill`, `interpolation`, ... |
| `pixel_range` | what the bytes 0 and 255 become: `[0.0, 1.0]` |
| `picture_rows` | rows of the decoder that a picture takes, T |
| `width` | numbers of a row, D |
| `layers`, `cache_shape` | number of caches and the shape of each |
| `cache_length` | most rows of prompt and answer together, S |
| `prefill_lengths` | the N of every `prefill_N` |
| `prompts` | the chat template: item n is the layout with n pictures, a list of pieces |
| `special_tokens` | a question that spells one of them is cut apart, so that it stays text |
| `trim` | whether blanks around a question are taken off |
| `stop_ids` | tokens that end an answer |
| `max_new_tokens` | longest answer, or null for what the cache leaves |

A piece is `{"ids": [...]}` (tokens), `{"picture": k}` (the rows of picture k), or
`{"before": ..., "after": ...}`: the question between two texts, tokenized as one text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dl_techniques.errors import ExportError, PromptError
from dl_techniques.export.litert_vlm.tokenizer_file import special_tokens
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import get_template
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import IMAGE, Segment

if TYPE_CHECKING:
    import keras

MOST_PICTURES = 4
FILES = {
    "tokenizer": "tokenizer.json",
    "encoder": "vision_encoder.tflite",
    "adapter": "vision_adapter.tflite",
    "embedder": "embedder.tflite",
    "language": "language_model.tflite",
}
_QUESTION = "\x00question\x00"


def make_manifest(
    model: keras.Model,
    *,
    size: int,
    picture_rows: int,
    prefill_lengths: Sequence[int],
    cache_length: int,
    shared_embedder: bool,
) -> dict[str, Any]:
    """The content of `manifest.json`.

    Args:
        model: `FastVLMCausalLM` with a preprocessor.
        size: side of the pictures in pixels.
        picture_rows: rows that a picture takes.
        prefill_lengths: of the files.
        cache_length: of the files.
        shared_embedder: whether the embedder stands in the language model's file.
    """
    decoder, tokenizer = model.backbone.decoder, model.preprocessor.tokenizer
    heads, head_size = decoder.cache_heads
    files = {**FILES, "embedder": FILES["language"]} if shared_embedder else FILES
    return {
        "files": dict(files),
        "picture": picture_rule(model.preprocessor.image_converter, size),
        "pixel_range": [0.0, 1.0],
        "picture_rows": picture_rows,
        "width": decoder.hidden_dim,
        "layers": len(decoder.backbone.transformer_layers),
        "cache_shape": [1, heads, cache_length, head_size],
        "cache_length": cache_length,
        "prefill_lengths": sorted(prefill_lengths),
        "prompts": [prompt_layout(model.preprocessor, n) for n in range(MOST_PICTURES + 1)],
        "picture_mark": IMAGE,
        "special_tokens": special_tokens(tokenizer),
        "trim": get_template(tokenizer.chat_template).trim,
        "stop_ids": sorted(set(model.stop_ids())),
        "max_new_tokens": model.max_new_tokens,
    }


def picture_rule(converter: keras.layers.Layer, size: int) -> dict[str, Any]:
    """How any picture becomes a square of `size` pixels."""
    return {
        "size": size,
        "mode": converter.mode,
        "fill": [int(255 * value) for value in converter.mean],
        "interpolation": converter.interpolation,
        "max_pixels": converter.max_pixels,
    }


def prompt_layout(preprocessor: keras.layers.Layer, num_pictures: int) -> list[dict[str, Any]]:
    """The chat template around a question with some pictures, in pieces.

    Args:
        preprocessor: `FastVLMCausalLMPreprocessor`.
        num_pictures: pictures in front of the question.

    Raises:
        ExportError: the template does not show the question once.

    Example:
        >>> prompt_layout(model.preprocessor, 1)  # doctest: +SKIP
        [{'ids': [2045, 1011, 198]}, {'picture': 0}, {'before': '\\n', 'after': ''}, ...]
    """
    messages = [{"role": "user", "content": _QUESTION}]
    try:
        segments = preprocessor.render(messages, num_pictures, preprocessor.system_prompt)
    except PromptError as error:
        raise ExportError(f"the chat template takes no single question: {error}") from error
    pieces: list[dict[str, Any]] = []
    for segment in segments:
        _append(pieces, _piece(preprocessor, segment, len(_pictures(pieces))))
    if sum("before" in piece for piece in pieces) != 1 or len(_pictures(pieces)) != num_pictures:
        raise ExportError("the chat template must show the question and every picture once")
    return pieces


def _pictures(pieces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [piece for piece in pieces if "picture" in piece]


def _piece(preprocessor: keras.layers.Layer, segment: Segment, number: int) -> dict[str, Any]:
    """One rendered segment as a piece; `number` counts the pictures before it."""
    if segment.kind == "image":
        return {"picture": number}
    if segment.kind == "text" and _QUESTION in segment.text:
        before, after = segment.text.split(_QUESTION)
        return {"before": before, "after": after}
    return {"ids": [int(i) for i in preprocessor.encode_segments([segment])[0]]}


def _append(pieces: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Adds a piece; tokens join the tokens before them."""
    if pieces and "ids" in pieces[-1] and "ids" in piece:
        pieces[-1]["ids"] += piece["ids"]
    else:
        pieces.append(piece)
