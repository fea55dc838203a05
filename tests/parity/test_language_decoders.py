"""Every family of decoders against transformers: logits, and as the head of a FastVLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.checkpoints.language import build_decoder, decoder_config, decoder_map
from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.checkpoints.weight_map import check_coverage, export_weights, load_weights
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from tests.helpers import numbers, randomize, relative_difference
from tests.parity import language_models as theirs

# Rounding in float32, over six layers at most; a wrong epsilon or base is off by 1e-2 and more.
TOLERANCE = 1e-5
NAMES = list(theirs.configs())
# One a family in every run, their further forms with --run-full.
FAMILIES = ("qwen2", "qwen3", "llama", "phi3", "opt", "gemma3_text")


def _params() -> list[Any]:
    full = pytest.mark.full
    return [pytest.param(n, marks=() if n in FAMILIES else full) for n in NAMES]


@pytest.fixture(scope="module", params=_params())
def pair(request: Any, tmp_path_factory: Any) -> tuple[str, Any, Any, Path]:
    """A name, transformers' model, ours with its weights, and the folder between them."""
    model = theirs.random_model(request.param)
    folder = theirs.save(model, tmp_path_factory.mktemp("decoder"))
    return request.param, model, _load(folder), folder


def _load(folder: Path) -> Any:
    """Our decoder with the weights of a folder."""
    spec = decoder_config(json.loads((folder / "config.json").read_text()))
    backbone = build_decoder(spec)
    with open_tensors(folder) as store:
        entries = decoder_map(backbone, spec)
        check_coverage(store, entries)
        load_weights(store, entries)
    return backbone


def test_logits_equal_those_of_transformers(pair: Any, rng: np.random.Generator) -> None:
    name, model, backbone, _ = pair
    ids = rng.integers(1, theirs.VOCABULARY, (2, 23))
    if name == "opt":
        ids[ids == 1] = 2
    mask = np.ones_like(ids)
    hidden = backbone({"token_ids": ids.astype("int32"), "padding_mask": mask.astype("int32")})
    ours = backbone.token_embedding(hidden, reverse=True)
    assert relative_difference(numbers(ours), theirs.logits(model, ids)) < TOLERANCE


@pytest.mark.parametrize("tokens", [17, 40])
def test_both_scalings_of_phi3_are_those_of_transformers(
    tokens: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Below and above the length it was pretrained with."""
    longrope = {**theirs.configs()["phi3-longrope"].rope_parameters}
    longrope["original_max_position_embeddings"] = 32
    changes = {"rope_parameters": longrope, "original_max_position_embeddings": 32}
    model = theirs.random_model("phi3-longrope", **changes)
    parts = _load(theirs.save(model, tmp_path))
    ids = rng.integers(1, theirs.VOCABULARY, (1, tokens))
    hidden = parts({"token_ids": ids.astype("int32"), "padding_mask": np.ones_like(ids, "int32")})
    ours = numbers(parts.token_embedding(hidden, reverse=True))
    assert relative_difference(ours, theirs.logits(model, ids)) < TOLERANCE


def test_writing_back_gives_the_file(pair: Any) -> None:
    name, _, backbone, folder = pair
    spec = decoder_config(json.loads((folder / "config.json").read_text()))
    with open_tensors(folder) as store:
        written = dict(export_weights(decoder_map(backbone, spec)))
        assert set(written) == set(store)
        for key, array in written.items():
            expected = store.read(key)
            start = 2 if key.endswith("embed_positions.weight") else 0  # rows no position reads
            np.testing.assert_array_equal(array[start:], expected[start:], err_msg=f"{name} {key}")


@pytest.fixture(scope="module")
def encoder() -> keras.Model:
    """Four rows a picture."""
    picture = keras.Input((16, 16, 3))
    model = keras.Model(picture, keras.layers.Conv2D(5, 8, 8, name="patches")(picture))
    randomize(model)
    return model


def test_answers_about_pictures_equal_those_of_transformers(
    pair: Any, encoder: keras.Model, rng: np.random.Generator
) -> None:
    _, model, decoder, _ = pair
    backbone = FastVLMBackbone(encoder, decoder)
    for variable in backbone.projector.weights:
        variable.assign(rng.normal(0, 0.5, variable.shape).astype("float32"))
    vlm = FastVLMCausalLM(backbone, preprocessor=None)
    inputs = _prompts(rng)
    rows = numbers(vlm.encode_images(inputs["images"])).astype("float32")
    output = vlm.generate(inputs, max_length=40, max_new_tokens=16, stop_token_ids=None)
    ids = keras.ops.convert_to_numpy(output["token_ids"])
    for i, length in enumerate((15, 9)):
        places = {int(p): rows[i][j] for j, p in enumerate(inputs["vision_indices"][i])}
        expected = theirs.greedy(model, inputs["token_ids"][i, :length], places)
        assert ids[i, :16].tolist() == expected


def _prompts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Two prompts of 15 and 9 tokens with a picture each, at the places 1 to 4."""
    ids = rng.integers(2, theirs.VOCABULARY, (2, 40)).astype("int32")
    mask = np.zeros((2, 40), bool)
    mask[0, :15], mask[1, :9] = True, True
    return {
        "token_ids": np.where(mask, ids, 0),
        "padding_mask": mask,
        "images": rng.uniform(-1, 1, (2, 1, 16, 16, 3)).astype("float32"),
        "vision_indices": np.tile(np.arange(1, 5, dtype="int32"), (2, 1)),
    }
