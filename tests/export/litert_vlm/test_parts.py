"""The four files: names, shapes, and what the vision part computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm import parts
from dl_techniques.export.litert_vlm.parts import write_parts
from tests.export.litert_vlm.small_export import ROWS, make_model, needs_tensorflow, runner
from tests.models.vision.fast_vlm.small_network import SIZE
from tests.models.vlm.fast_vlm.small_model import WIDTH


def shapes(details: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        name: (entry["dtype"].__name__, tuple(int(n) for n in entry["shape"]))
        for name, entry in details.items()
    }


@needs_tensorflow
def test_contract_of_the_engine(tmp_path: Path) -> None:
    """Names and shapes that LiteRT-LM reads; the encoder normalizes the pixels itself."""
    model = make_model()
    paths = write_parts(model, tmp_path, prefill_lengths=(8,), cache_length=32)
    assert set(paths) == {"vision_encoder", "vision_adapter", "language_model", "embedder"}
    encode, adapt = (
        runner(paths["vision_encoder"], "encode"),
        runner(paths["vision_adapter"], "adapt"),
    )
    assert shapes(encode.get_input_details()) == {"image": ("float32", (1, SIZE, SIZE, 3))}
    assert shapes(adapt.get_output_details()) == {"rows": ("float32", (1, ROWS, WIDTH))}
    embed = runner(paths["embedder"], "embed")
    assert shapes(embed.get_input_details()) == {"token_ids": ("int32", (1, 1))}
    decode = runner(paths["language_model"], "decode")
    assert sorted(decode.interpreter.get_signature_list()) == ["decode", "prefill_8"]
    caches = {f"kv_cache_{p}_{i}": ("float32", (1, 2, 32, 8)) for i in (0, 1) for p in "kv"}
    assert shapes(decode.get_input_details()) == {
        "embeddings": ("float32", (1, 1, WIDTH)),
        "input_pos": ("int32", (1,)),
        **caches,
    }
    vocabulary = model.preprocessor.tokenizer.vocabulary_size()
    logits = {"logits": ("float32", (1, 1, vocabulary))}
    assert shapes(decode.get_output_details()) == {**caches, **logits}
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels = model.preprocessor.image_converter.scale_pixels(picture)[None, None]
    expected = ops.convert_to_numpy(model.encode_images(pixels))
    rows = adapt(**encode(image=picture[None] / np.float32(255)))["rows"]
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8_static"}, "int8_static"),
        ({"prefill_lengths": ()}, "between 2"),
        ({"prefill_lengths": (16, 64), "cache_length": 32}, "between 2"),
        ({"prefill_lengths": (1,)}, "between 2"),
        ({"precision": "int8", "share_embedder": True}, "float32 only"),
        ({"image_size": 2}, "at least"),
    ],
)
def test_impossible_requests(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        write_parts(make_model(), tmp_path / "parts", **options)
    assert not list(tmp_path.iterdir())


def test_quantized_models_are_refused(tmp_path: Path) -> None:
    model = make_model()
    model.backbone.projector.dense_1.quantize("int8")
    with pytest.raises(ExportError, match="quantized by Keras"):
        write_parts(model, tmp_path)


def test_more_rows_than_places() -> None:
    with pytest.raises(ExportError, match="keeps 16 rows"):
        parts._check_selection(16, 4)
