"""Which recipe reaches a size."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from dl_techniques.compression import Recipe, recipe_for_size
from dl_techniques.compression.optimization import target
from dl_techniques.compression.optimization.recipe_parts import Export, Training
from dl_techniques.compression.optimization.target import describe, ladder
from dl_techniques.errors import CompressionError
from tests.export.litert_files import NEEDS_TENSORFLOW
from tests.export.small_exports import small_mobile_one
from tests.models.vision.fast_vlm.small_network import make_network, make_smaller_network

SIZES = {
    "float32": 4.0,
    "float16": 2.0,
    "int8": 1.0,
    "50 % of hidden channels pruned, int8": 0.7,
    "25 % of width and hidden channels pruned, int8": None,
    "50 % of width and hidden channels pruned, int8": 0.3,
    "75 % of width and hidden channels pruned, int8": 0.1,
}


@pytest.fixture
def known_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(model: Any, recipe: Recipe) -> int | None:
        megabytes = SIZES[describe(recipe)]
        return None if megabytes is None else int(megabytes * 1e6)

    monkeypatch.setattr(target, "_size", size)


def test_the_ladder_goes_from_mild_to_strong() -> None:
    assert [describe(recipe) for recipe in ladder(Recipe(), True)] == list(SIZES)
    assert [describe(recipe) for recipe in ladder(Recipe(), False)] == list(SIZES)[:3]


@pytest.mark.parametrize(
    ("megabytes", "found"), [(5, 0), (4.0, 0), (3, 1), (1.99, 2), (0.8, 3), (0.5, 5), (0.1, 6)]
)
def test_the_mildest_that_fits_is_taken(known_sizes: None, megabytes: float, found: int) -> None:
    said: list[str] = []
    training = Training(batch_size=8)
    recipe = recipe_for_size(
        make_smaller_network(), megabytes, export=Export(image_size=32), training=training,
        say=said.append,
    )  # fmt: skip
    assert describe(recipe) == list(SIZES)[found]
    assert (recipe.training, recipe.export.image_size) == (training, 32)
    assert said[-1].startswith(describe(recipe))


@pytest.mark.once
def test_what_cannot_be_reached_is_told(known_sizes: None) -> None:
    with pytest.raises(CompressionError, match=r"0.05 MB cannot be reached: .* 0.10 MB;"):
        recipe_for_size(make_smaller_network(), 0.05)
    with pytest.raises(CompressionError, match="1.00 MB; with --data it could be pruned too"):
        recipe_for_size(make_smaller_network(), 0.5, trainable=False)
    with pytest.raises(CompressionError, match="1.00 MB"):
        recipe_for_size(small_mobile_one(), 0.5)


@pytest.mark.full
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason=NEEDS_TENSORFLOW)
def test_sizes_are_those_of_the_files() -> None:
    model = make_network(embed_dims=(16, 32, 64), num_classes=3)
    said: list[str] = []
    with pytest.raises(CompressionError, match="cannot be reached"):
        recipe_for_size(model, 1e-3, say=said.append)
    sizes = [float(line.split(": ")[1].split()[0]) for line in said]
    assert len(sizes) >= 5 and sizes == sorted(sizes, reverse=True)
