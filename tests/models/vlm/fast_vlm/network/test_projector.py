"""The projector's options: pooling to a grid, and the feature enhancer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.checkpoints.fast_vlm.export_configs import model_config
from dl_techniques.errors import VariantError
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.network.projector import (
    FeatureEnhancer,
    Projector,
    pooled,
)
from tests.helpers import numbers
from tests.models.vlm.fast_vlm.small_model import (
    make_decoder,
    make_encoder,
    make_preprocessor,
    pictures,
    randomize,
)


@pytest.mark.parametrize(("side", "grid"), [(6, (2, 3)), (5, (2, 2)), (4, (4, 4)), (3, (5, 1))])
def test_pooling_is_that_of_torch(side: int, grid: tuple[int, int], rng: Any) -> None:
    torch = pytest.importorskip("torch")
    maps = rng.normal(size=(2, side, side, 7)).astype("float32")
    pool = torch.nn.AdaptiveAvgPool2d(grid)
    expected = pool(torch.tensor(maps).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    got = numbers(pooled(ops.convert_to_tensor(maps.reshape(2, side * side, 7)), grid))
    np.testing.assert_allclose(got, expected.reshape(2, -1, 7), atol=1e-5)


def test_the_enhancer_is_a_bottleneck_beside_the_rows(rng: Any) -> None:
    layer = FeatureEnhancer()
    layer.build((None, 3, 6))
    randomize(layer)
    x = rng.normal(size=(2, 3, 6)).astype("float32")
    w1, b1, w2, b2 = (np.array(w, "float64") for w in layer.get_weights())
    assert w1.shape == (6, 3) and w2.shape == (3, 6)
    hidden = x @ w1 + b1
    hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    added = hidden @ w2 + b2
    np.testing.assert_allclose(numbers(layer(x)), x + added, atol=1e-5)
    ones = np.repeat(x[:1], 200, axis=0)
    trained = numbers(layer(ones, training=True)) - ones
    dropped = np.isclose(trained, 0.0)
    assert 0.05 < dropped.mean() < 0.15
    scaled = np.broadcast_to(added[:1] / 0.9, trained.shape)
    np.testing.assert_allclose(trained[~dropped], scaled[~dropped], atol=1e-4)


def test_a_projector_with_both(rng: Any) -> None:
    """Pooled first, enhanced last; its config brings both back."""
    layer = Projector(8, hidden_dim=5, pool=(2, 1), enhance=True)
    layer.build((None, 16, 6))
    randomize(layer)
    x = rng.normal(size=(3, 16, 6)).astype("float32")
    plain = Projector(8, hidden_dim=5)
    plain.build((None, 2, 6))
    plain.set_weights(layer.get_weights()[:4])
    rows = plain(pooled(ops.convert_to_tensor(x), (2, 1)))
    np.testing.assert_allclose(numbers(layer(x)), numbers(layer.enhancer(rows)), atol=1e-5)
    assert layer.compute_output_shape((3, 16, 6)) == (3, 2, 8)
    again = Projector.from_config(layer.get_config())
    assert again.pool == (2, 1) and again.enhancer is not None
    assert Projector(8).get_config()["pool"] is None and len(plain.weights) == 4


@pytest.mark.once
def test_grids_and_maps_that_cannot_be() -> None:
    for wrong in ((0, 2), (2,), (2.0, 2), "22", (True, 2)):
        with pytest.raises(VariantError, match="^pool must be two whole numbers"):
            Projector(8, pool=wrong)
    with pytest.raises(VariantError, match="a square feature map of fixed size, got 6 rows"):
        Projector(8, pool=(2, 2))(np.zeros((1, 6, 4), "float32"))


def make_model(**options: Any) -> FastVLMCausalLM:
    """A tiny model whose encoder gives 2 x 2 places."""
    preprocessor = make_preprocessor()
    decoder = make_decoder("qwen", preprocessor.tokenizer.vocabulary_size())
    backbone = FastVLMBackbone(make_encoder(), decoder, **options)
    randomize(backbone)
    preprocessor.num_image_tokens = backbone.num_image_tokens
    return FastVLMCausalLM(backbone, preprocessor)


def test_a_model_with_both_answers_and_comes_back(tmp_path: Path) -> None:
    model = make_model(pool=(2, 1), enhance=True)
    assert model.backbone.num_image_tokens == 2
    ask = {"prompts": "Why?", "images": pictures(1)[0]}
    told = model.generate(ask, max_new_tokens=5, return_logprobs=0)
    model.save_to_preset(tmp_path / "preset")
    again = FastVLMCausalLM.from_preset(tmp_path / "preset")
    assert again.generate(ask, max_new_tokens=5, return_logprobs=0).token_ids == told.token_ids
    assert again.backbone.projector.pool == (2, 1) and again.backbone.num_image_tokens == 2
    inputs = model.preprocessor.generate_preprocess(ask)
    rows = model.encode_images(inputs["images"])
    assert tuple(rows.shape)[:2] == (1, 2)
    model.select_tokens(1)
    assert model.backbone.num_image_tokens == 1
    with pytest.raises(ValueError, match="image_tokens=3: expected 1 to 2"):
        model.select_tokens(3)


def test_the_enhancer_is_trained() -> None:
    model = make_model(enhance=True)
    before = [numbers(w) for w in model.backbone.projector.enhancer.weights]
    model.compile(keras.optimizers.SGD(0.5))
    record = {"prompts": ["Why?"], "images": pictures(1), "responses": ["a red cube"]}
    model.fit(record, batch_size=1, epochs=1, verbose=0)
    after = [numbers(w) for w in model.backbone.projector.enhancer.weights]
    assert all((a != b).any() for a, b in zip(before[:4], after[:4], strict=True))


@pytest.mark.once
@pytest.mark.parametrize("options", [{"pool": (1, 1)}, {"enhance": True}])
def test_they_cannot_be_written_for_transformers(options: dict[str, Any]) -> None:
    with pytest.raises(VariantError, match="pools or enhances its rows cannot be written"):
        model_config(make_model(**options).backbone)
