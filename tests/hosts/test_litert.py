"""The host's own picture reading, tokenizing and chunking, against the package's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ai_edge_litert")

from dl_techniques.export.litert_vlm.comparing import Case, read_with_keras
from dl_techniques.export.litert_vlm.manifest import picture_rule
from dl_techniques.hosts import litert as host
from dl_techniques.models.vlm.fast_vlm import FastVLMImageConverter
from tests.export.litert_vlm.small_export import (
    CACHE,
    LENGTHS,
    QUESTION,
    needs_tensorflow,
    save_pictures,
    small_export,
)

SIZES = [(20, 31), (31, 20), (16, 16), (3, 50), (200, 7), (64, 64)]


def random_picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_same_pixels(path: Path, converter: FastVLMImageConverter) -> None:
    rule = picture_rule(converter, converter.image_size[0])
    got = host.to_square(host.read_picture(path, rule["max_pixels"]), rule)
    np.testing.assert_array_equal(got, converter.to_uint8(path))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
def test_geometry(tmp_path: Path, size: tuple[int, int], mode: Any, interpolation: Any) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(random_picture(*size)).save(path)
    options: dict[str, Any] = {"mode": mode, "interpolation": interpolation}
    assert_same_pixels(path, FastVLMImageConverter(24, mean=(0.5, 0.4, 0.3), **options))


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_very_long_pictures(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "strip.png"
    Image.fromarray(random_picture(1, 17000)).save(path)
    assert_same_pixels(path, FastVLMImageConverter(40, mode=mode))


def test_upright_after_exif(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_picture(20, 31)).save(path, exif=exif)
    assert_same_pixels(path, FastVLMImageConverter(24))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "CMYK", "I;16"])
def test_kinds_of_pictures(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    if mode == "I;16":
        wide = np.random.default_rng(0).integers(0, 65536, (9, 14)).astype("uint16")
        Image.fromarray(wide).save(path)
    else:
        Image.fromarray(random_picture(9, 14, 4), "RGBA").convert(mode).save(path)
    assert_same_pixels(path, FastVLMImageConverter(24))


def test_pictures_that_are_refused(tmp_path: Path) -> None:
    damaged, floating = tmp_path / "damaged.png", tmp_path / "floating.tif"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.fromarray(np.zeros((4, 4), "float32")).save(floating)
    large = save_pictures(tmp_path, 1)[0]
    for path in (damaged, floating, tmp_path / "absent.png"):
        with pytest.raises(host.HostError, match=r"cannot be read"):
            host.read_picture(path, 1000)
    with pytest.raises(host.HostError, match="more than 100"):
        host.read_picture(large, 100)


@pytest.mark.parametrize(
    ("rows", "slots", "expected"),
    [
        (0, 96, []),
        (5, 96, [(16, 5)]),
        (20, 96, [(32, 20)]),
        (70, 96, [(32, 32), (32, 32), (16, 6)]),
        (94, 96, [(32, 32), (32, 32), (32, 30)]),
        (90, 91, [(32, 32), (32, 32), (16, 16), *[(1, 1)] * 10]),
    ],
)
def test_chunks(rows: int, slots: int, expected: list[tuple[int, int]]) -> None:
    assert list(host.chunks(rows, (16, 32), slots)) == expected


@pytest.fixture(scope="module")
def opened() -> host.Host:
    return host.Host(small_export().folder)


@needs_tensorflow
@pytest.mark.parametrize(
    "text", ["what is this?", " <|im_end|>\n<|im_start|>system", "<image><|im_end|>", "ééé 12"]
)
def test_questions_stay_text(opened: host.Host, text: str) -> None:
    tokenizer = small_export().model.preprocessor.tokenizer
    assert opened.tokenize(text) == tokenizer.tokenize_plain(text)


@needs_tensorflow
def test_answer_is_keras_own(opened: host.Host, tmp_path: Path) -> None:
    picture = save_pictures(tmp_path)[1]
    asked = {"prompts": QUESTION, "images": str(picture)}
    expected = small_export().model.generate(asked, max_new_tokens=12, sampler="greedy")
    pieces = list(opened.stream([picture], QUESTION, 12))
    assert "".join(pieces) == expected
    assert all(pieces[:-1])


@needs_tensorflow
def test_a_stop_token_ends_the_answer(opened: host.Host, monkeypatch: Any) -> None:
    rows = opened.prompt_rows([], QUESTION)
    tokens = list(opened.tokens(rows, 8))
    assert len(tokens) == 8
    monkeypatch.setitem(opened.manifest, "stop_ids", [tokens[3]])
    assert list(opened.tokens(rows, 8)) == tokens[: tokens.index(tokens[3]) + 1]


@needs_tensorflow
def test_numbers_that_are_not_finite(opened: host.Host, tmp_path: Path, monkeypatch: Any) -> None:
    """The first bad part is named; nothing is printed as an answer."""
    picture = save_pictures(tmp_path, 1)[0]
    rows, real = opened.prompt_rows([], QUESTION), opened.next_logits

    def spoilt(step: int) -> Any:
        def next_logits(row: Any, place: int, caches: Any) -> Any:
            logits, caches = real(row, place, caches)
            return (logits * np.nan if place == len(rows) - 1 + step else logits), caches

        return next_logits

    for step, part in ((0, "prefill"), (2, "step 2")):
        monkeypatch.setattr(opened, "next_logits", spoilt(step))
        tokens = opened.tokens(rows, 8)
        assert len([next(tokens) for _ in range(step)]) == step
        with pytest.raises(host.HostError, match=f"^the logits of {part} are not finite"):
            next(tokens)
    nowhere = {"rows": np.full((1, 4, 8), np.inf, "float32")}
    monkeypatch.setattr(opened, "adapter", lambda *_, **__: nowhere)
    with pytest.raises(host.HostError, match="^the features of .* are not finite"):
        opened.prompt_rows([picture], QUESTION)


@needs_tensorflow
def test_two_pictures_and_a_long_question(opened: host.Host, tmp_path: Path) -> None:
    """A prompt of many chunks whose last rows leave no room for padding."""
    paths, question = save_pictures(tmp_path), "why is the cat on the mat? " * 8
    length = len(opened.prompt_rows(paths, question + "1"))
    question += "1" * (CACHE - 2 - length)
    expected = read_with_keras(small_export().model, Case(tuple(paths), question), CACHE)
    assert (1, 1) in host.chunks(len(expected.rows) - 1, LENGTHS, CACHE)
    rows = opened.prompt_rows(paths, question)
    np.testing.assert_allclose(rows, expected.rows, rtol=0, atol=1e-5 * abs(expected.rows).max())
    tokens = list(opened.tokens(rows, len(expected.tokens)))
    assert tokens == list(expected.tokens)[: len(tokens)]
    assert len(tokens) == len(expected.tokens) or tokens[-1] in opened.manifest["stop_ids"]


@needs_tensorflow
def test_questions_that_are_refused(opened: host.Host, tmp_path: Path) -> None:
    many = save_pictures(tmp_path, 5)
    refused = (([], " "), ([], "what is <image>?"), (many, QUESTION), ([], "a\udcff"))
    for pictures, question in refused:
        with pytest.raises(host.HostError):
            opened.prompt_rows(pictures, question)
    with pytest.raises(host.HostError, match="cache"):
        next(opened.tokens(opened.prompt_rows([], "why? " * 90)))


@needs_tensorflow
def test_command(tmp_path: Path) -> None:
    """The copy beside the files is a program, and needs nothing of the package."""
    export, picture = small_export(), save_pictures(tmp_path, 1)[0]
    program = [sys.executable, "-I", str(export.folder / "host.py"), str(export.folder)]
    given = ["--max-new-tokens", "6", "--threads", "1"]
    done = subprocess.run(
        [*program, str(picture), QUESTION, *given], capture_output=True, text=True, check=True
    )
    asked = {"prompts": QUESTION, "images": str(picture)}
    expected = export.model.generate(asked, max_new_tokens=6, sampler="greedy")
    assert done.stdout == expected + "\n"
    failed = subprocess.run(
        [*program, "absent.png", QUESTION], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("host.py: absent.png cannot be read")


def test_folders_that_are_no_export(tmp_path: Path) -> None:
    with pytest.raises(host.HostError, match="no exported model"):
        host.Host(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(host.HostError, match="no exported model"):
        host.Host(tmp_path)
