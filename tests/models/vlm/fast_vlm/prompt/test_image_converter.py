"""The picture recipe, held against plain transcriptions of Apple's and Hugging Face's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dl_techniques.errors import ImageError
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter

SHAPES = [(20, 30), (101, 37), (32, 32), (33, 32), (1, 1), (7, 300), (200, 333)]
CLIP = {"mean": (0.481, 0.458, 0.408), "std": (0.269, 0.261, 0.276)}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def noise(height: Any, width: Any, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype="uint8")


def normalized(image: Any, mean: Any, std: Any) -> Any:
    """Rescale in float64, then normalize in float32, as CLIP's processor does."""
    scaled = (np.asarray(image).astype("float64") * (1 / 255)).astype("float32")
    return (scaled - np.array(mean, "float32")) / np.array(std, "float32")


def apple(pixels: Any, size: Any, mean: Any, std: Any) -> Any:
    image = Image.fromarray(pixels)
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * m) for m in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return normalized(square.resize((size, size), Image.Resampling.BICUBIC), mean, std)


def hugging_face(pixels: Any, size: Any, mean: Any, std: Any) -> Any:
    image = Image.fromarray(pixels)
    short, long = sorted(image.size)
    grown = int(size * long / short)
    shape = (size, grown) if image.width <= image.height else (grown, size)
    image = image.resize(shape, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return normalized(image.crop((left, top, left + size, top + size)), mean, std)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("statistics", [PLAIN, CLIP])
@pytest.mark.parametrize(("mode", "recipe"), [("pad", apple), ("crop", hugging_face)])
def test_bit_for_bit(shape: Any, statistics: Any, mode: str, recipe: Any) -> None:
    pixels = noise(*shape)
    made = FastVLMImageConverter(32, mode=mode, **statistics)(pixels)
    expected = recipe(pixels, 32, **statistics)
    assert made.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(made, expected)


def test_batches_and_single_pictures(tmp_path: Path) -> None:
    converter = FastVLMImageConverter((16, 16))
    path = tmp_path / "a.png"
    Image.fromarray(noise(9, 5)).save(path)
    sources = [noise(9, 5), path, str(path), path.read_bytes(), Image.open(path)]
    batch = converter(sources)
    assert isinstance(batch, np.ndarray) and batch.shape == (5, 16, 16, 3)
    for row in batch:
        np.testing.assert_array_equal(row, batch[0])
    for source in sources:
        np.testing.assert_array_equal(converter(source), batch[0])
    stacked = np.stack([noise(9, 5), noise(9, 5, seed=1)])
    np.testing.assert_array_equal(converter(stacked), converter(list(stacked)))
    assert converter([]).shape == (0, 16, 16, 3)


def test_output_is_float32_under_mixed_precision() -> None:
    converter = FastVLMImageConverter(8, dtype="mixed_bfloat16")
    assert converter([noise(4, 4)]).dtype == np.float32


def test_config_round_trip_through_json() -> None:
    converter = FastVLMImageConverter(
        24, mode="crop", interpolation="lanczos", max_pixels=500, name="eyes", **CLIP
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(converter)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == converter.get_config()
    pixels = noise(11, 17)
    np.testing.assert_array_equal(again(pixels), converter(pixels))
    with pytest.raises(ImageError, match="max_pixels=500"):
        again(Image.fromarray(noise(30, 30)))


def test_image_size_can_be_set() -> None:
    converter = FastVLMImageConverter(8)
    converter.image_size = (12, 12)
    assert converter(noise(5, 5)).shape == (12, 12, 3) and converter.image_size == (12, 12)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "stretch"},
        {"interpolation": "cubic"},
        {"image_size": (8, 9)},
        {"image_size": 0},
        {"std": (1, 0, 1)},
        {"mean": (0.5,)},
        {"colour": 3},
    ],
)
def test_wrong_arguments(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        FastVLMImageConverter(**arguments)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_text("text")
    with pytest.raises(ImageError, match="broken.jpg") as caught:
        FastVLMImageConverter(8)([noise(4, 4), path])
    assert "\n" not in str(caught.value)
