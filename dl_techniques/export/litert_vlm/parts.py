"""A vision-language model as four LiteRT files, in the form that the LiteRT-LM engine expects.

| file | signature | input | output |
|---|---|---|---|
| `vision_encoder.tflite` | `encode` | `image` float32[1, S, S, 3], RGB in 0..1 | `features` |
| `vision_adapter.tflite` | `adapt` | `features` float32[1, h * w, C] | `rows` float32[1, T, D] |
| `embedder.tflite` | `embed` | `token_ids` int32[1, 1] | `embeddings` float32[1, 1, D] |
| `language_model.tflite` | `prefill_N`, `decode` | see `language_model` | |

The encoder is fused and folded, and normalizes the pixels itself. A table of embeddings that also
makes the logits is in two of the files; `share_embedder` puts the embedder into the language
model's file, where one copy serves both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.errors import ExportError
from dl_techniques.export.litert.litert_precision import requantize
from dl_techniques.export.litert_vlm.conversion import Signature, write_signatures
from dl_techniques.export.litert_vlm.language_model import (
    check_decoder,
    embed_signature,
    language_signatures,
)
from dl_techniques.export.networks import copy_of, fuse, refuse_quantized, size_of
from dl_techniques.typing import Tensor

PREFILL_LENGTHS = (32, 128)
CACHE_LENGTH = 512

# What each part is in a precision. Only the converter makes a table of embeddings smaller, and
# convolutions of 4 bits are too coarse.
_PARTS_IN: Mapping[str, tuple[str, str, str]] = {
    "float32": ("float32", "float32", "float32"),
    "float16": ("float16", "float16", "float16"),
    "int8": ("int8", "int8", "int8"),
    "int8_weights": ("int8_weights", "int8_weights", "int8"),
    "int4_weights": ("int8_weights", "int4_weights", "int8"),
}
PRECISIONS = tuple(_PARTS_IN)


def write_parts(
    model: keras.Model,
    folder: str | Path,
    *,
    image_size: int | None = None,
    prefill_lengths: Sequence[int] = PREFILL_LENGTHS,
    cache_length: int = CACHE_LENGTH,
    precision: str = "float32",
    share_embedder: bool = False,
    block_size: int | None = None,
    skip: Sequence[str] = (),
) -> dict[str, Path]:
    """Writes the LiteRT files of a model; Keras must run on TensorFlow.

    Args:
        model: `FastVLMCausalLM`; it is not changed.
        folder: where to write; made if needed.
        image_size: side of the pictures in pixels. Defaults to the model's own.
        prefill_lengths: rows that each prefill signature reads at once.
        cache_length: most rows of prompt and answer together.
        precision: one of `PRECISIONS`; int4 is for the language model, the rest has 8 bits.
        share_embedder: put the embedder into the language model's file. Only in float32, for
            the quantizer takes no table that two operators share.
        block_size: int4 weights of the language model that share a scale, see `requantize`.
        skip: weights of the language model that stay float32, see `requantize`.

    Returns:
        `vision_encoder`, `vision_adapter`, `language_model` and, unless it is shared, `embedder`:
        each one's file.

    Raises:
        ExportError: another backend, a decoder, size, length or precision that is not possible.
        MissingExtraError: TensorFlow or the quantizer is not installed.
    """
    lengths = sorted({int(n) for n in prefill_lengths})
    check_request(model, lengths, cache_length, precision)
    if share_embedder and precision != "float32":
        raise ExportError(f"the embedder can be shared in float32 only, not in {precision}")
    if precision == "float32" and (block_size or skip):
        raise ExportError("block_size and skip are for quantized weights, and float32 has none")
    size = size_of(model, image_size)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vision, language, table = _PARTS_IN[precision]
    paths = _write_vision(model, folder, size, vision)
    decoder = model.backbone.decoder
    paths["language_model"] = _write(
        folder / "language_model.tflite",
        decoder.backbone,
        language_signatures(decoder, lengths, cache_length, share_embedder),
        language,
        by_quantizer=True,
        block_size=block_size,
        skip=skip,
    )
    if not share_embedder:
        path, signatures = folder / "embedder.tflite", {"embed": embed_signature(decoder)}
        paths["embedder"] = _write(path, decoder.backbone.token_embedding, signatures, table)
    return paths


def check_request(
    model: keras.Model, lengths: Sequence[int], cache_length: int, precision: str
) -> None:
    """Refuses what cannot be exported, before the work.

    Raises:
        ExportError: says what came and what can be.
    """
    if precision not in PRECISIONS:
        raise ExportError(
            f"a vision-language model cannot be written in {precision!r}; use one of "
            f"{', '.join(PRECISIONS)}"
        )
    if not lengths or lengths[0] < 2 or lengths[-1] > cache_length:
        raise ExportError(
            f"prefill lengths must lie between 2 and the cache length {cache_length}, got "
            f"{list(lengths)}"
        )
    check_decoder(model.backbone.decoder, cache_length)
    refuse_quantized(model)


def _write_vision(
    model: keras.Model, folder: Path, size: tuple[int, int], precision: str
) -> dict[str, Path]:
    """Encoder and adapter."""
    embedding = copy_of(model.backbone.image_embedding, size)
    fuse(embedding)
    places, channels = _feature_shape(embedding.vision_encoder, size)
    _check_selection(embedding.selector.num_tokens, places)
    converter = getattr(model.preprocessor, "image_converter", None)

    def encode(image: Tensor) -> dict[str, Tensor]:
        features = embedding.vision_encoder(_normalized(image, converter))
        return {"features": ops.reshape(features, (1, places, channels))}

    def adapt(features: Tensor) -> dict[str, Tensor]:
        return {"rows": embedding.selector(embedding.projector(features))}

    encoder = {"encode": Signature(encode, {"image": ((1, *size, 3), "float32")})}
    adapter = {"adapt": Signature(adapt, {"features": ((1, places, channels), "float32")})}
    path = folder / "vision_adapter.tflite"
    return {
        "vision_encoder": _write(
            folder / "vision_encoder.tflite", embedding.vision_encoder, encoder, precision
        ),
        "vision_adapter": _write(path, embedding, adapter, precision),
    }


def _write(
    path: Path,
    layer: keras.layers.Layer,
    signatures: Mapping[str, Signature],
    precision: str,
    by_quantizer: bool = False,
    **choice: Any,
) -> Path:
    """One file; with several signatures only the quantizer sees that they share weights."""
    if not by_quantizer and precision in ("float32", "float16", "int8"):
        return write_signatures(path, layer, signatures, precision)
    write_signatures(path, layer, signatures)
    if precision != "float32":
        requantize(path, path, precision, **choice)
    return path


def _feature_shape(encoder: keras.Model, size: tuple[int, int]) -> tuple[int, int]:
    """Places and channels of the encoder's map."""
    _, height, width, channels = encoder.compute_output_shape((1, *size, 3))
    return int(height * width), int(channels)


def _check_selection(kept: int | None, places: int) -> None:
    """Refuses a picture too small for the number of rows that are kept of it."""
    if kept is not None and kept > places:
        raise ExportError(
            f"the model keeps {kept} rows of a picture, and at this size it has {places}; choose "
            "a larger size, or fewer rows with select_tokens"
        )


def _normalized(image: Tensor, converter: keras.layers.Layer) -> Tensor:
    """Pixels in 0..1 as the encoder was trained on."""
    if converter is None or (not any(converter.mean) and set(converter.std) == {1.0}):
        return image
    return (image - np.asarray(converter.mean, "float32")) / np.asarray(converter.std, "float32")
