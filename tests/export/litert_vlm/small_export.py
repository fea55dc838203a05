"""A model with a real encoder, colours of its own and random weights, and its exported folder."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dl_techniques.export.report import ExportReport
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
)
from tests.models.vision.fast_vlm.small_network import SIZE, make_smaller_network
from tests.models.vlm.fast_vlm import small_model

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes LiteRT files"
)
QUESTION = "what is this? a red cube"
LENGTHS, CACHE = (16, 32), 150
ROWS = 16
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def make_model(kind: str = "qwen", tokens: int | None = None) -> FastVLMCausalLM:
    """A tiny model of a family of decoders.

    Args:
        kind: key of `small_model.DECODERS`.
        tokens: rows of a picture that are kept; None for all.
    """
    tokenizer = small_model.make_preprocessor().tokenizer
    decoder = small_model.make_decoder(kind, tokenizer.vocabulary_size())
    encoder = make_smaller_network(include_top=False)
    backbone = FastVLMBackbone(encoder, decoder, projector_dim=20, image_tokens=tokens)
    small_model.randomize(decoder)
    small_model.randomize(backbone.projector, seed=1)
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer,
        FastVLMImageConverter(SIZE, mean=MEAN, std=STD),
        sequence_length=small_model.CONTEXT,
        num_image_tokens=tokens or ROWS,
        system_prompt="Be brief.",
    )
    return FastVLMCausalLM(backbone, preprocessor)


@dataclass(frozen=True)
class SmallExport:
    """An exported folder, the model that it was made from, and the report."""

    model: FastVLMCausalLM
    folder: Path
    report: ExportReport


@functools.cache
def small_export() -> SmallExport:
    """Written and compared once for all tests of a session."""
    from dl_techniques.export.litert_vlm import export_vlm

    model, folder = make_model(), Path(tempfile.mkdtemp()) / "small"
    report = export_vlm(
        model,
        folder,
        prefill_lengths=LENGTHS,
        cache_length=CACHE,
        pictures=save_pictures(folder.parent),
        question=QUESTION,
    )
    return SmallExport(model, folder, report)


def save_pictures(folder: Path, number: int = 2) -> list[Path]:
    """Random pictures as files."""
    paths = [folder / f"picture_{i}.png" for i in range(number)]
    for path, picture in zip(paths, small_model.pictures(number), strict=True):
        Image.fromarray(picture).save(path)
    return paths


def runner(path: Path, signature: str) -> Any:
    """A signature of a LiteRT file as a function."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    call = interpreter.get_signature_runner(signature)
    call.interpreter = interpreter  # which must live as long
    return call


def make_half_billion(**numbers: Any) -> FastVLMCausalLM:
    """A model of FastVLM-0.5B's shape with random weights, in which pictures matter.

    Every matrix keeps the size of what goes through it, and the rows of pictures are scaled to
    those of words.

    Args:
        **numbers: of the variant that are to be others, e.g. `num_layers=2`.
    """
    tokenizer = small_model.make_preprocessor().tokenizer
    model = FastVLMCausalLM.from_variant("fastvlm_0.5b", tokenizer=tokenizer, **numbers)
    backbone = model.backbone
    rng = np.random.default_rng(0)
    for weight in [*backbone.text_backbone.weights, *backbone.projector.weights]:
        if weight.path.endswith("scale"):
            weight.assign(1 + 0.1 * rng.standard_normal(weight.shape, "float32"))
        else:
            spread = 0.02 if len(weight.shape) < 2 or "embed" in weight.path else None
            spread = spread or int(weight.shape[0]) ** -0.5
            weight.assign(spread * rng.standard_normal(weight.shape, "float32"))
    size = backbone.image_size[0]
    picture = rng.uniform(size=(1, 1, size, size, 3)).astype("float32")
    spread = float(keras.ops.std(model.encode_images(picture)))
    backbone.projector.dense_2.kernel.assign(backbone.projector.dense_2.kernel * (0.02 / spread))
    return model
