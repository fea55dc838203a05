"""Damaged folders and pictures: one line of the package's own, which names what is damaged."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dl_techniques import FastVLM
from dl_techniques.cli import main
from dl_techniques.data import load_image
from dl_techniques.errors import CheckpointError, DLTechniquesError, ImageError
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from tests.checkpoints.fast_vlm.folders import PLAIN_TOWER, apple_folder, make_backbone
from tests.models.vision.fast_vlm.small_network import make_smaller_network
from tests.models.vlm.fast_vlm.small_model import make_model
from tests.mutations import damage

LOADERS: dict[str, Callable[[Path], Any]] = {
    "apple": FastVLMCausalLM.from_preset,
    "transformers": FastVLMCausalLM.from_preset,
    "ours": FastVLMCausalLM.from_preset,
    "vision": FastVLM.from_preset,
}
LONGEST = 700


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whole")
    found = {name: root / name for name in LOADERS}
    apple_folder(found["apple"], make_backbone(PLAIN_TOWER), 15_000)
    FastVLMCausalLM.from_preset(found["apple"]).export_to_transformers(found["transformers"])
    make_model().save_to_preset(found["ours"])
    make_smaller_network(include_top=False).save_to_preset(found["vision"])
    return found


def fuzz_files(folders: dict[str, Path], seeds: range, work: Path) -> dict[str, int]:
    """Damages one file a seed, loads its folder; counts loaded ones and refusals."""
    counts = {"loaded": 0, "refused": 0}
    for seed in seeds:
        rng = random.Random(seed)
        kind = rng.choice(list(LOADERS))
        copy = Path(shutil.copytree(folders[kind], work / f"{kind}-{seed}"))
        files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
        how = damage(rng.choice(files), rng)
        try:
            LOADERS[kind](copy)
            counts["loaded"] += 1
        except DLTechniquesError as error:
            said = str(error)
            assert isinstance(error, ValueError) and str(copy) in said, (seed, kind, how, said)
            assert "\n" not in said and len(said) < LONGEST, (seed, kind, how, said)
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, {kind}, {how}: {error!r}") from error
        shutil.rmtree(copy)
    return counts


@pytest.mark.once
def test_some_damaged_files(folders: dict[str, Path], tmp_path: Path) -> None:
    counts = fuzz_files(folders, range(24), tmp_path)
    assert min(counts.values()) > 3


@pytest.mark.full
def test_a_thousand_damaged_files(folders: dict[str, Path], tmp_path: Path) -> None:
    counts = fuzz_files(folders, range(24, 1024), tmp_path)
    assert min(counts.values()) > 200


def pictures() -> list[bytes]:
    """The same scene in every format that cameras, phones and pages give."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)
    scene = Image.fromarray(pixels).resize((60, 48), Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for form, image, options in (
        ("PNG", scene, {}),
        ("PNG", scene.convert("P"), {"transparency": 3}),
        ("PNG", scene.convert("L"), {}),
        ("JPEG", scene, {"exif": exif}),
        ("JPEG", scene, {"progressive": True}),
        ("JPEG", scene.convert("CMYK"), {}),
        ("WEBP", scene, {}),
        ("GIF", scene, {}),
        ("BMP", scene, {}),
        ("TIFF", scene, {"compression": "tiff_lzw"}),
        ("PPM", scene, {}),
        ("ICO", scene, {}),
    ):
        file = BytesIO()
        image.save(file, form, **options)
        made.append(file.getvalue())
    return made


def fuzz_pictures(seeds: range, work: Path) -> dict[str, int]:
    """Damages one picture a seed and reads it; counts what was read and what was refused."""
    counts, whole, path = {"read": 0, "refused": 0}, pictures(), work / "picture"
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(rng.choice(whole))
        how = damage(path, rng)
        try:
            image = load_image(path)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            counts["read"] += 1
        except ImageError as error:
            said = str(error)
            assert "picture" in said and "\n" not in said and len(said) < LONGEST, (seed, how, said)
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, {how}: {error!r}") from error
    return counts


@pytest.mark.once
def test_some_damaged_pictures(tmp_path: Path) -> None:
    assert min(fuzz_pictures(range(60), tmp_path).values()) > 10


@pytest.mark.full
def test_a_thousand_damaged_pictures(tmp_path: Path) -> None:
    assert min(fuzz_pictures(range(60, 1060), tmp_path).values()) > 200


def set_field(path: Path, place: str, value: Any) -> None:
    """Changes one field of a JSON file, or of the header of a safetensors file."""
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little") if path.suffix == ".safetensors" else None
    document = json.loads(data if header is None else data[8 : 8 + header])
    *parents, last = place.split("/")
    inside = document
    for name in parents:
        inside = inside[int(name) if isinstance(inside, list) else name]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    text = json.dumps(document).encode()
    if header is not None:
        text = len(text).to_bytes(8, "little") + text + data[8 + header :]
    path.write_bytes(text)


ARRAY = "model.multi_modal_projector.linear_1.bias"
CASES = [
    ("config.json", "text_config/num_hidden_layers", float("inf"), "num_hidden_layers is inf"),
    ("config.json", "text_config/num_hidden_layers", "x", "num_hidden_layers is 'x'"),
    ("config.json", "text_config/num_hidden_layers", 2**29, "the weights have 2 layers"),
    ("config.json", "text_config/hidden_size", [], r"hidden_size is \[\]"),
    ("config.json", "text_config/hidden_size", 0, "hidden_size is 0, expected a whole number"),
    ("config.json", "text_config/vocab_size", 0.5, "vocab_size is 0.5"),
    ("config.json", "text_config/rms_norm_eps", {}, "rms_norm_eps is {}, expected a number"),
    ("config.json", "text_config/rope_parameters", 7, "rope_parameters is 7, expected an object"),
    ("config.json", "text_config/rope_parameters/rope_theta", "x", "rope_theta is 'x'"),
    ("config.json", "text_config/tie_word_embeddings", "x", "tie_word_embeddings is 'x'"),
    ("config.json", "text_config/use_sliding_window", 3, "use_sliding_window is 3"),
    ("config.json", "text_config", [1], r"text_config is \[1\], expected an object"),
    ("config.json", "vision_config/model_args/mlp_ratios", 3, "model_args"),
    ("config.json", "vision_config/model_args", 5, "model_args is 5, expected an object"),
    ("preprocessor_config.json", "crop_size/height", "x", "height is 'x'"),
    ("preprocessor_config.json", "image_mean", [0.5], "mean needs one value per channel"),
    ("generation_config.json", "temperature", "hot", "temperature is 'hot'"),
    ("tokenizer_config.json", "model_max_length", "7", "model_max_length is '7'"),
    ("tokenizer_config.json", "pad_token", ["x"], r"pad_token is \['x'\], expected text"),
    ("tokenizer.json", "added_tokens/0/id", "x", r"added_tokens\[0\].id is 'x'"),
    ("tokenizer.json", "added_tokens/0/content", 3, r"added_tokens\[0\].content is 3"),
    ("tokenizer.json", "model/vocab", 5, "model.vocab is 5, expected an object"),
    ("tokenizer.json", "model/vocab/!", "1", "the id of '!' is '1'"),
    ("model.safetensors", f"{ARRAY}/dtype", ..., f"{ARRAY}' has no 'dtype'"),
    ("model.safetensors", f"{ARRAY}/dtype", 5, f"{ARRAY}': dtype is 5, expected text"),
    ("model.safetensors", f"{ARRAY}/dtype", "F3", f"{ARRAY}' has the unknown type 'F3'"),
    ("model.safetensors", f"{ARRAY}/shape", [2**29], f"{ARRAY}' has 64 bytes for shape"),
    ("model.safetensors", f"{ARRAY}/shape", [-16], f"{ARRAY}': shape is -16"),
    ("model.safetensors", f"{ARRAY}/data_offsets", [9, 3], f"{ARRAY}': data_offsets is"),
    ("model.safetensors", ARRAY, 7, f"{ARRAY}' is 7, expected an object"),
]


@pytest.mark.once
@pytest.mark.parametrize(("file", "place", "value", "said"), CASES)
def test_the_file_and_the_field_are_named(
    file: str,
    place: str,
    value: Any,
    said: str,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = Path(shutil.copytree(folders["transformers"], tmp_path / "copy"))
    set_field(copy / file, place, value)
    with pytest.raises(CheckpointError, match=said) as caught:
        FastVLMCausalLM.from_preset(copy)
    message = str(caught.value)
    assert str(copy) in message and file in message and "\n" not in message
    assert main.main(["convert", str(copy), "--dry-run"]) == main.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(copy) in error


OURS = [
    ("config.json", "registered_name", ..., "config.json: registered_name is None"),
    ("task.json", "config", ..., "task.json: config is None, expected an object"),
    ("task.json", "class_name", 7, "task.json: class_name is 7, expected text"),
    (
        "task.json",
        "config/backbone/config/text_backbone/config/num_layers",
        2**40,
        "num_layers is 1099",
    ),
    ("task.json", "config/backbone/config/text_backbone/config/num_layers", "x", "task.json"),
    ("assets/tokenizer/vocabulary.json", "a", "x", "vocabulary.json and merges.txt are damaged"),
]


@pytest.mark.once
@pytest.mark.parametrize(("file", "place", "value", "said"), OURS)
def test_the_file_of_a_preset_is_named(
    file: str, place: str, value: Any, said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folders["ours"], tmp_path / "copy"))
    set_field(copy / file, place, value)
    with pytest.raises(CheckpointError, match=said) as caught:
        FastVLMCausalLM.from_preset(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["ours", "vision"])
def test_weights_with_a_damaged_table_inside(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """HDF5 finds its groups through tables that begin with these letters."""
    for sign in (b"TREE", b"SNOD", b"HEAP"):
        copy = Path(shutil.copytree(folders[kind], tmp_path / sign.decode()))
        file = copy / "model.weights.h5"
        data = file.read_bytes()
        places = [i for i in range(len(data)) if data.startswith(sign, i)]
        assert len(places) > 3
        for place in (places[1], places[len(places) // 2], places[-1]):
            file.write_bytes(data[:place] + b"\0\0\0\0" + data[place + 4 :])
            with pytest.raises(CheckpointError, match=r"model\.weights\.h5") as caught:
                LOADERS[kind](copy)
            assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.once
def test_bad_bytes_in_the_merges(folders: dict[str, Path], tmp_path: Path) -> None:
    for kind, name in (("apple", "merges.txt"), ("ours", "assets/tokenizer/merges.txt")):
        copy = Path(shutil.copytree(folders[kind], tmp_path / kind))
        for content in (b"\xff\xfe", b"x y z\n"):
            (copy / name).write_bytes(content)
            with pytest.raises(CheckpointError, match="erge") as caught:
                FastVLMCausalLM.from_preset(copy)
            assert str(copy) in str(caught.value)
