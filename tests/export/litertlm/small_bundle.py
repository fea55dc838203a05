"""A bundle small enough to test with, whose answers are letters and depend on the picture."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.export.report import ExportReport
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes the files of a bundle"
)
QUESTIONS = ("what is this?", "why is the cat on the mat?")
LIMIT = 10
LENGTHS, CACHE = (16, 32), 192


@dataclass(frozen=True)
class SmallBundle:
    """A bundle, the model that it was made from, and the report."""

    model: Any
    path: Path
    report: ExportReport


def talkative_model() -> Any:
    """A random model that writes letters only.

    Pieces of characters and control tokens are spelled differently by the two tokenizers, which
    is no question of the model; the rows of these tokens, hence their logits, are zero.
    """
    model = make_model("qwen")
    tokenizer, table = model.preprocessor.tokenizer, model.backbone.token_embedding
    rows = np.array(table.embeddings)
    letters = [i for t, i in tokenizer.vocabulary.items() if t.isascii() and t.isalpha()]
    rows[np.setdiff1d(np.arange(len(rows)), letters)] *= 0.01
    table.embeddings.assign(rows)
    return model


@functools.cache
def small_bundle() -> SmallBundle:
    """Written and compared once for all tests."""
    from dl_techniques.export.litertlm import export_bundle

    model = talkative_model()
    path = Path(tempfile.mkdtemp()) / "small.litertlm"
    report = export_bundle(
        model,
        path,
        prefill_lengths=LENGTHS,
        cache_length=CACHE,
        pictures=pictures(3),
        question=QUESTIONS,
        max_new_tokens=LIMIT,
    )
    return SmallBundle(model, path, report)
