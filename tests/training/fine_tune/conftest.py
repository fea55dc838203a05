"""A tiny preset and a few pictures with questions about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.vlm.fast_vlm.small_model import make_model

ANSWERS = ("red", "blue", "a cat", "the red cube and the blue ball on the mat")


@pytest.fixture(scope="session")
def small_preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a vision-language model with random weights."""
    folder = tmp_path_factory.mktemp("presets") / "small"
    make_model().save_to_preset(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`my.jsonl` with seven pictures of one colour each, beside it."""
    folder = tmp_path_factory.mktemp("records")
    lines = []
    for i in range(7):
        colour = np.zeros((20, 24, 3), "uint8")
        colour[..., i % 3] = 255
        Image.fromarray(colour).save(folder / f"{i}.png")
        record = {"image": f"{i}.png", "question": "what is this?", "answer": ANSWERS[i % 4]}
        lines.append(json.dumps(record))
    path = folder / "my.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
