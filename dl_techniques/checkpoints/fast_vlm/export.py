"""Our models in the Hugging Face layout: tensors under timm's and Qwen2's names, all configs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np

from dl_techniques.checkpoints.fast_vlm.export_configs import (
    image_processor_config,
    model_config,
    text_config,
    tokenizer_config,
)
from dl_techniques.checkpoints.fast_vlm.layouts import TRANSFORMERS
from dl_techniques.checkpoints.folders import replacing_folder
from dl_techniques.checkpoints.language import decoder_config
from dl_techniques.checkpoints.tensor_files import TensorInfo
from dl_techniques.checkpoints.tensor_writer import MAX_SHARD_BYTES, save_tensors
from dl_techniques.checkpoints.weight_map import Entry, WeightMap
from dl_techniques.data.files import atomic_writer
from dl_techniques.models.vlm.fast_vlm.causal_lm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import jinja_template
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

COUNTER = "num_batches_tracked"
"""Torch's batch norms count their batches; a file without the counts is called incomplete."""


def export(
    what: Any,
    folder: Path,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int], None] | None = None,
    resume: bool = False,
    image_token_id: int | None = None,
) -> None:
    """Writes a model or a part of one.

    Args:
        what: a FastVLMCausalLM, FastVLMBackbone, preprocessor, picture converter or tokenizer.
        folder: where to; replaced when everything is written.
        dtype: type of the tensors, e.g. "bfloat16". Defaults to the variables' own.
        max_shard_bytes: size at which another shard is begun.
        progress: told the bytes of each array that was written.
        resume: write into the folder itself and keep shards that are there whole; the caller makes
            sure that they come from the same model.
        image_token_id: of the placeholder, for a model without a tokenizer.

    Raises:
        VariantError: a tower or decoder that the layout cannot hold.
        TypeError: an object that has no place in this layout.
    """
    place: AbstractContextManager[Path] = (
        nullcontext(folder) if resume else replacing_folder(folder)
    )
    # What cannot be written is found before the first file.
    contents = _contents(what, dtype, image_token_id)
    with place as partial:
        partial.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic_writer(partial / name) as file:
                file.write(content if isinstance(content, str) else json.dumps(content, indent=2))
        if isinstance(what, FastVLMCausalLM | FastVLMBackbone):
            backbone = what.backbone if isinstance(what, FastVLMCausalLM) else what
            tensors, read = _tensors(backbone, dtype)
            save_tensors(partial, tensors, read, max_shard_bytes, progress, resume)


def _contents(what: Any, dtype: str | None, image_token_id: int | None) -> dict[str, Any]:
    """File name -> content of everything but the tensors."""
    if isinstance(what, FastVLMCausalLM):
        tokenizer = what.preprocessor.tokenizer if what.preprocessor is not None else None
        config = model_config(what.backbone, tokenizer, dtype, image_token_id)
        parts = {} if tokenizer is None else _contents(what.preprocessor, None, None)
        return {
            "config.json": config,
            "generation_config.json": _generation_config(what, tokenizer),
            **parts,
        }
    if isinstance(what, FastVLMBackbone):
        return {"config.json": model_config(what, None, dtype, image_token_id)}
    if isinstance(what, FastVLMCausalLMPreprocessor):
        return _preprocessor_contents(what)
    if isinstance(what, FastVLMImageConverter):
        return {"preprocessor_config.json": image_processor_config(what)}
    if isinstance(what, FastVLMTokenizer):
        return {
            "tokenizer.json": what.to_hugging_face(),
            "tokenizer_config.json": tokenizer_config(what),
        }
    raise TypeError(f"{type(what).__name__} has no place in the Hugging Face layout of FastVLM")


def _preprocessor_contents(preprocessor: FastVLMCausalLMPreprocessor) -> dict[str, Any]:
    size = preprocessor.image_converter.image_size[0]
    template = jinja_template(preprocessor.system_prompt)
    config = tokenizer_config(preprocessor.tokenizer, preprocessor.sequence_length)
    return {
        **_contents(preprocessor.image_converter, None, None),
        **_contents(preprocessor.tokenizer, None, None),
        "tokenizer_config.json": config,
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": preprocessor.tokenizer.image_token,
            "num_additional_image_tokens": 0,
            "patch_size": size // math.isqrt(preprocessor.num_image_tokens),
        },
        "chat_template.jinja": template,
    }


def _generation_config(model: FastVLMCausalLM, tokenizer: keras.layers.Layer) -> dict[str, Any]:
    ids = {
        "bos_token_id": getattr(tokenizer, "end_token2_id", None),
        "eos_token_id": getattr(tokenizer, "end_token_id", None),
        "pad_token_id": getattr(tokenizer, "pad_token_id", None),
        "max_new_tokens": model.max_new_tokens,
    }
    sampling: dict[str, Any] = {"do_sample": False}
    if model.temperature:
        sampling = {"do_sample": True, "temperature": model.temperature}
    return {**{k: v for k, v in ids.items() if v is not None}, **sampling}


def _tensors(
    backbone: FastVLMBackbone, dtype: str | None
) -> tuple[dict[str, TensorInfo], Callable[[str], np.ndarray]]:
    """Shapes and types of all tensors, and how to get one."""
    entries = transformers_map(backbone)
    infos: dict[str, TensorInfo] = {}
    for name, entry in entries.items():
        wanted = _numpy_type(dtype or str(entry.variable.dtype))
        infos[name] = TensorInfo(entry.source_shape, wanted)
        if name.endswith(".running_var"):
            infos[name.replace("running_var", COUNTER)] = TensorInfo((), np.dtype("int64"))

    def read(name: str) -> np.ndarray:
        if name not in entries:
            return np.zeros((), "int64")
        return _source_array(entries[name], infos[name].dtype)

    return infos, read


def transformers_map(backbone: FastVLMBackbone) -> WeightMap:
    """Names in the Hugging Face layout -> variables."""
    decoder = decoder_config(text_config(backbone.text_backbone))
    return TRANSFORMERS.weight_map(backbone, decoder)


def _source_array(entry: Entry, dtype: np.dtype) -> np.ndarray:
    values = np.asarray(keras.ops.convert_to_numpy(entry.variable.value)).astype(dtype, copy=False)
    return entry.transform.to_source(values)


def _numpy_type(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
