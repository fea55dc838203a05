"""The reader of FastVLM folders, as `dl_techniques.models.presets.readers` asks for it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.fast_vlm.loading import load_backbone
from dl_techniques.checkpoints.fast_vlm.processing import (
    generation_defaults,
    image_converter_of,
    preprocessor_of,
    tokenizer_of,
)
from dl_techniques.checkpoints.fast_vlm.source import Source, is_fast_vlm_folder, read_source
from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.errors import PresetError
from dl_techniques.models.vlm.fast_vlm.causal_lm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import FastVLMJsonTokenizer
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

_BACKBONE = ("dtype", "image_size", "load_weights", "progress")
ACCEPTED: Mapping[type, tuple[str, ...]] = {
    FastVLMCausalLM: (*_BACKBONE, "processing", "preprocessor"),
    FastVLMBackbone: _BACKBONE,
    FastVLMCausalLMPreprocessor: ("image_size", "processing"),
    FastVLMImageConverter: ("image_size", "processing"),
    FastVLMTokenizer: (),
    FastVLMJsonTokenizer: (),
}
"""Class -> what its `from_preset` takes for a published folder."""


def recognises(cls: type, source: Path, variant: str | None = None) -> bool:
    """Whether `source` is a FastVLM folder in a published layout, and `cls` a part of one."""
    return cls in ACCEPTED and is_fast_vlm_folder(source)


def load(cls: type, source: Path, variant: str | None, overrides: dict[str, Any]) -> Any:
    """Makes a model or a part of one.

    Args:
        cls: one of `ACCEPTED`.
        source: the folder.
        variant: size that it must hold, e.g. `"fastvlm_0.5b"`.
        overrides: of `ACCEPTED[cls]`: `dtype`; `image_size` of the pictures; `load_weights`;
            `progress`, told the bytes of each array; `processing`, "apple" or "transformers";
            `preprocessor`, None for a model that takes arrays.

    Raises:
        PresetError: an unknown override (the nearest is named).
        CheckpointError: the folder does not make a FastVLM.
    """
    _refuse_unknown(cls, overrides)
    if cls is FastVLMCausalLM:
        return _causal_lm(source, variant, overrides)
    if cls is FastVLMBackbone:
        return _backbone(source, variant, overrides)[0]
    found = _described(source, variant, overrides.get("image_size"))
    processing = overrides.get("processing", "apple")
    if cls is FastVLMCausalLMPreprocessor:
        return preprocessor_of(found, processing)
    if cls is FastVLMImageConverter:
        return image_converter_of(found, processing)
    return tokenizer_of(found)


def _refuse_unknown(cls: type, overrides: Mapping[str, Any]) -> None:
    for key in overrides:
        if key not in ACCEPTED[cls]:
            near = difflib.get_close_matches(key, ACCEPTED[cls], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {list(ACCEPTED[cls])}"
            raise PresetError(f"{cls.__name__} of a published folder takes no {key!r}; {hint}")


def _described(source: Path, variant: str | None, image_size: int | None) -> Source:
    with open_tensors(source) as store:
        found = read_source(source, {n: info.shape for n, info in store.items()}, image_size)
    if variant is not None:
        found.check_variant(variant)
    return found


def check_processing(folder: Path) -> None:
    """Reads all that loading a folder reads besides the weights: tokenizer and settings.

    Raises:
        CheckpointError: the error that loading gives.
    """
    found = _described(folder, None, None)
    preprocessor_of(found)
    generation_defaults(found)


def _backbone(
    source: Path, variant: str | None, overrides: Mapping[str, Any]
) -> tuple[FastVLMBackbone, Source]:
    return load_backbone(
        source,
        dtype=overrides.get("dtype"),
        image_size=overrides.get("image_size"),
        variant=variant,
        load=overrides.get("load_weights", True),
        progress=overrides.get("progress"),
    )


def _causal_lm(source: Path, variant: str | None, overrides: Mapping[str, Any]) -> FastVLMCausalLM:
    # The small files first: an unreadable tokenizer must not cost the loading of the weights.
    found = _described(source, variant, overrides.get("image_size"))
    if "preprocessor" in overrides:
        preprocessor = overrides["preprocessor"]
    else:
        preprocessor = preprocessor_of(found, overrides.get("processing", "apple"))
    backbone, _ = _backbone(source, variant, overrides)
    return FastVLMCausalLM(backbone, preprocessor, **generation_defaults(found))
