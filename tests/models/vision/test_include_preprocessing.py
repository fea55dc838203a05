"""Networks that take pixels 0..255 and scale them themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression import quantize_weights
from dl_techniques.compression.channel_pruning import prune_channels
from dl_techniques.compression.distillation import TeacherView
from dl_techniques.compression.optimization.classifier_files import chance_notes
from dl_techniques.data.labelled import Labelled, pictures_for
from dl_techniques.data.preprocessing import pixel_range, to_input
from dl_techniques.errors import CompressionError, VariantError
from dl_techniques.export.perform import perform
from dl_techniques.export.request import ExportRequest
from dl_techniques.export.subject import make_subject
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone
from tests.compression.class_folders import COLOURS as CLASSES
from tests.compression.class_folders import write_classes
from tests.export.small_exports import OWN_FORMAT
from tests.helpers import numbers, relative_difference
from tests.models.vision.fast_vlm.small_network import SIZE, make_smaller_network
from tests.models.vlm.fast_vlm import small_model

COLOURS = {"size": SIZE, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
PLAIN = {"size": SIZE}
BYTES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype="uint8")


def pair(preprocessing: dict[str, Any], **options: Any) -> tuple[FastVLM, FastVLM]:
    """One network twice: pixels scaled outside, and inside."""
    outside = make_smaller_network(preprocessing=preprocessing, **options)
    inside = FastVLM.from_config({**outside.get_config(), "include_preprocessing": True})
    inside.set_weights(outside.get_weights())
    return outside, inside


@pytest.mark.parametrize("preprocessing", [PLAIN, COLOURS])
def test_the_same_network_takes_bytes(preprocessing: dict[str, Any], tmp_path: Path) -> None:
    outside, inside = pair(preprocessing)
    x = to_input(BYTES, outside.preprocessing)
    expected = numbers(outside(x))
    assert relative_difference(inside(BYTES.astype("float32")), expected) < 1e-5
    assert relative_difference(inside.predict(BYTES, verbose=0), expected) < 1e-5
    maps = zip(inside.extract_features(BYTES), outside.extract_features(x), strict=True)
    assert all(relative_difference(ours, theirs) < 1e-5 for ours, theirs in maps)
    inside.reparameterize(fold=True)
    assert relative_difference(inside(BYTES), expected) < 1e-4
    inside.save(tmp_path / "m.keras")
    inside.save_to_preset(tmp_path / "preset")
    for again in (
        keras.models.load_model(tmp_path / "m.keras"),
        FastVLM.from_preset(tmp_path / "preset"),
    ):
        assert again.include_preprocessing and pixel_range(again) == "[0, 255]"
        np.testing.assert_array_equal(numbers(again(BYTES)), numbers(inside(BYTES)))
    without = FastVLM.from_preset(tmp_path / "preset", include_preprocessing=False)
    assert relative_difference(without(x), expected) < 1e-4


def test_mobile_one_takes_bytes() -> None:
    arguments = {"embed_dims": (8, 16), "depths": (1, 1), "stem_dim": 8, "preprocessing": COLOURS}
    inside = MobileOne(4, input_shape=(SIZE, SIZE, 3), include_preprocessing=True, **arguments)
    outside = MobileOne(4, input_shape=(SIZE, SIZE, 3), **arguments)
    outside.set_weights(inside.get_weights())
    x = to_input(BYTES, outside.preprocessing)
    assert relative_difference(inside(BYTES), outside(x)) < 1e-5
    first, second = (m.extract_features(p)[0] for m, p in ((inside, BYTES), (outside, x)))
    assert relative_difference(first, second) < 1e-5


@pytest.mark.once
@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_half_precision_sees_every_byte(dtype: str) -> None:
    outside, inside = pair(COLOURS, dtype=dtype)
    scaled = numbers(inside.rescaled(BYTES))
    assert len(np.unique(scaled[..., 0])) > 200
    expected = numbers(outside.rescaled(to_input(BYTES, outside.preprocessing)))
    # At most the last place of bfloat16, where float32 differs in its own last place.
    np.testing.assert_allclose(scaled, expected, rtol=2**-7, atol=1e-6)


@pytest.mark.once
def test_the_global_data_format_changes_nothing() -> None:
    _, inside = pair(COLOURS)
    expected = numbers(inside(BYTES))
    keras.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_array_equal(numbers(inside(BYTES)), expected)
        assert relative_difference(pair(COLOURS)[1](BYTES), expected) < 1e-5
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.once
def test_descendants_take_the_same_pixels() -> None:
    _, inside = pair(COLOURS)
    assert prune_channels(inside, 0.5, targets=("hidden",)).include_preprocessing
    exact = numbers(inside(BYTES))
    quantize_weights(inside)
    assert relative_difference(inside(BYTES), exact) < 0.1
    assert FastVLM.from_config(inside.get_config()).include_preprocessing


@pytest.mark.once
def test_a_teacher_gets_pixels_of_its_own_range() -> None:
    outside, inside = pair(COLOURS)
    scaled, raw = to_input(BYTES, outside.preprocessing), BYTES.astype("float32")
    to_raw = TeacherView.between(outside, inside)
    to_scaled = TeacherView.between(inside, outside)
    assert to_raw is not None and to_scaled is not None
    assert relative_difference(to_raw(keras.ops.convert_to_tensor(scaled)), raw) < 1e-5
    assert relative_difference(to_scaled(keras.ops.convert_to_tensor(raw)), scaled) < 1e-5
    assert TeacherView.between(inside, inside) is None


@pytest.mark.once
def test_a_first_fit_from_a_folder(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pictures")
    model = make_smaller_network(
        num_classes=len(CLASSES), include_preprocessing=True, layer_scale_init=0.1
    )
    train, (pictures, labels), classes = pictures_for(model, folder, 8)
    assert classes == tuple(sorted(CLASSES)) and labels.tolist() == [0, 0, 1, 1, 2, 2]
    pixels, _ = train[0]
    assert pixels.dtype == pictures.dtype == np.float32
    assert pixels.max() > 200 and pictures.shape == (6, SIZE, SIZE, 3) and pictures.max() > 200
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(train, validation_data=(pictures, labels), epochs=2, verbose=0).history
    assert np.isfinite(losses["val_loss"]).all()
    outside = make_smaller_network(num_classes=len(CLASSES), preprocessing=COLOURS)
    _, (scaled, _), _ = pictures_for(outside, folder, 8)
    np.testing.assert_array_equal(scaled, to_input(pictures.astype("uint8"), outside.preprocessing))
    with pytest.raises(CompressionError, match="make it with num_classes=3"):
        pictures_for(make_smaller_network(num_classes=4), folder)


@pytest.mark.once
def test_a_file_takes_what_the_network_takes(tmp_path: Path) -> None:
    outside, inside = pair(COLOURS)
    subjects = [make_subject(m, "classifier", None, False) for m in (outside, inside)]
    assert [s.pixels for s in subjects] == ["[0, 1]", "[0, 255]"]
    inputs = [s.inputs(None, 4) for s in subjects]
    assert inputs[0][0].max() <= 1 < 200 < inputs[1][0].max()
    first, second = (s.expected(i)["logits"] for s, i in zip(subjects, inputs, strict=True))
    assert relative_difference(second, first) < 1e-5


@pytest.mark.skipif(keras.backend.backend() not in OWN_FORMAT, reason="jax writes no format alone")
def test_a_written_file_says_its_range(tmp_path: Path) -> None:
    form = OWN_FORMAT[keras.backend.backend()]
    path = tmp_path / ("m.pt2" if form == "torch" else "m")
    request = ExportRequest(form, "classifier", "float32", None, False, None, None, None, {})
    report = perform(pair(COLOURS)[1], request, path)
    assert report.passed and "RGB in [0, 255]" in report.notes[0]
    if form == "torch":
        import torch

        found = {"image.txt": ""}
        torch.export.load(path, extra_files=found)
        assert found["image.txt"] == "RGB in [0, 255]"
    else:
        assert (path / "assets.extra" / "image.txt").read_text() == "RGB in [0, 255]"


@pytest.mark.once
def test_figures_at_chance_are_told() -> None:
    labels = np.arange(600, dtype="int32") % 12
    held_out = Labelled(np.zeros((600, 1, 1, 3), "uint8"), labels, tuple("abcdefghijkl"))
    outside, inside = pair(PLAIN)
    (note,) = chance_notes(outside, 0.083, held_out)
    assert "8.30 % of 600 pictures" in note and "given pixels in [0, 1]" in note
    assert "trained on [0, 255] (make it with include_preprocessing=True)" in note
    (other,) = chance_notes(inside, 0.05, held_out)
    assert "given pixels in [0, 255]" in other and "include_preprocessing=False" in other
    assert chance_notes(outside, 0.457, held_out) == ()
    assert chance_notes(outside, None, held_out) == ()


@pytest.mark.once
def test_a_vision_language_model_scales_pixels_itself() -> None:
    encoder = make_smaller_network(include_top=False, include_preprocessing=True)
    with pytest.raises(VariantError, match="include_preprocessing=False"):
        FastVLMBackbone(encoder, small_model.make_decoder())
