"""The preprocessor of a published folder: tokenizer, picture converter and template.

Two ways to prepare an input exist for the same weights. `"apple"` is that of Apple's
`predict.py`: pictures padded to squares. `"transformers"` is that of the Hugging Face conversion:
the middle square of a picture, and a newline in front of every text.
"""

from __future__ import annotations

from typing import Any, Literal

from dl_techniques.checkpoints.config_files import Fields, read_json_if_there
from dl_techniques.checkpoints.fast_vlm.source import Source
from dl_techniques.checkpoints.tokenizers import tokenizer_from_files
from dl_techniques.data.damage import reading
from dl_techniques.data.geometry import Interpolation
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor

Processing = Literal["apple", "transformers"]
MODES: dict[str, Literal["pad", "crop"]] = {"apple": "pad", "transformers": "crop"}
RESAMPLING: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as `preprocessor_config.json` has them."""
BICUBIC = 3
MAX_NEW_TOKENS, TEMPERATURE = 256, 0.2


def preprocessor_of(source: Source, processing: Processing = "apple") -> Any:
    """Tokenizer, picture converter and template of a folder.

    Raises:
        CheckpointError: its tokenizer is missing or has more tokens than the network, or
            `processing` is unknown.
    """
    return FastVLMCausalLMPreprocessor(
        tokenizer_of(source),
        image_converter_of(source, processing),
        sequence_length=source.sequence_length,
        num_image_tokens=source.num_image_tokens,
        template=processing,
    )


def tokenizer_of(source: Source) -> Any:
    """The tokenizer of a folder, with `<image>` added where Apple's lacks it.

    Raises:
        CheckpointError: it is missing, damaged, or has more tokens than the network has rows.
    """
    rows = source.decoder.vocabulary_size
    tokenizer = tokenizer_from_files(source.folder, chat_template="fastvlm")
    if tokenizer.vocabulary_size() > rows:
        raise CheckpointError(
            f"{source.folder}: the tokenizer has {tokenizer.vocabulary_size()} tokens and the "
            f"network {rows} rows; the files do not belong together"
        )
    return tokenizer


def image_converter_of(source: Source, processing: Processing = "apple") -> FastVLMImageConverter:
    """The picture converter of a folder."""
    if processing not in MODES:
        raise CheckpointError(f"processing={processing!r} is unknown; use one of {list(MODES)}")
    path = source.folder / "preprocessor_config.json"
    settings = read_json_if_there(path)
    with reading(path):
        return _converter(source, Fields(settings, str(path)), processing)


def _converter(source: Source, fields: Fields, processing: Processing) -> FastVLMImageConverter:
    settings = fields.values
    resample = fields.expect("resample", *RESAMPLING)
    resample = BICUBIC if resample is None else resample
    statistics: dict[str, Any] = {}
    if settings.get("do_normalize", True) and settings.get("image_mean") is not None:
        statistics = {"mean": settings["image_mean"], "std": settings.get("image_std", (1, 1, 1))}
    return FastVLMImageConverter(
        source.image_size,
        mode=MODES[processing],
        interpolation=RESAMPLING[resample],
        **statistics,
    )


def generation_defaults(source: Source) -> dict[str, Any]:
    """How `generate` answers where nothing is asked for: the folder's word, else `predict.py`'s."""
    path = source.folder / "generation_config.json"
    settings = Fields(read_json_if_there(path), str(path))
    temperature = settings.real("temperature")
    if settings.values.get("do_sample") is False:
        temperature = 0.0
    if temperature is not None and temperature < 0:
        raise CheckpointError(f"{path}: temperature is {temperature}; expected 0 or more")
    return {
        "max_new_tokens": settings.whole("max_new_tokens") or MAX_NEW_TOKENS,
        "temperature": TEMPERATURE if temperature is None else temperature,
    }
