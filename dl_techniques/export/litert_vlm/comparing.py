"""An exported folder against Keras: the same prompts, the same numbers, the same tokens."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from dl_techniques.errors import ExportError
from dl_techniques.export.gates import GATES
from dl_techniques.export.litert_vlm import probe
from dl_techniques.export.report import Check, compare_arrays

if TYPE_CHECKING:
    import keras

COMPARED_TOKENS = 24
SECONDS = 3600


@dataclass(frozen=True)
class Case:
    """One prompt to compare on.

    Attributes:
        pictures: files, 0 or more.
        question: about them.
    """

    pictures: tuple[Path, ...]
    question: str


@dataclass(frozen=True)
class Reading:
    """What a prompt leads to.

    Attributes:
        rows: float32[n, D]. The whole prompt as the decoder reads it.
        logits: float32[V]. After the prompt.
        tokens: the greedy continuation, not ended by stop tokens.
    """

    rows: np.ndarray
    logits: np.ndarray
    tokens: tuple[int, ...]


def read_with_keras(model: keras.Model, case: Case, cache_length: int) -> Reading:
    """Keras' own reading of a prompt.

    Raises:
        ExportError: the prompt does not fit into the cache.
    """
    request = {"prompts": [case.question], "images": [[str(path) for path in case.pictures]]}
    inputs = model.preprocessor.generate_preprocess(request)
    count = int(inputs["padding_mask"].sum())
    if count >= cache_length:
        raise ExportError(
            f"a question with {len(case.pictures)} picture(s) takes {count} rows of the "
            f"cache, which has {cache_length}; make cache_length larger"
        )
    images = model.encode_images(inputs["images"])
    limit = min(COMPARED_TOKENS, cache_length - count)
    logits, _ = model.prefill(inputs, images, max_new_tokens=limit)
    stream = model.stream(request, None, None, max_new_tokens=limit, sampler="greedy")
    list(stream)
    ids = inputs["token_ids"][:, :count]
    rows = _spliced(model.backbone, ids, images, inputs["vision_indices"])
    return Reading(rows, ops.convert_to_numpy(logits)[0], tuple(stream.token_ids))


def _spliced(backbone: keras.Model, ids: np.ndarray, images: Any, places: np.ndarray) -> np.ndarray:
    """The rows of a prompt without padding: float32[n, D]."""
    embedded = backbone.decoder.embed(ops.convert_to_tensor(ids))
    rows = backbone.image_splice(embedded, images, ops.convert_to_tensor(places))
    return np.asarray(ops.convert_to_numpy(rows))[0]


def read_with_host(
    folder: Path, cases: Sequence[Case], limits: Sequence[int], work: Path
) -> list[Reading]:
    """The same through the folder's own host, in a process that cannot import Keras.

    Args:
        folder: the exported folder.
        cases: the prompts.
        limits: tokens to generate for each of them.
        work: an existing folder for what goes to and fro.

    Raises:
        ExportError: the host failed.
    """
    asked, answered = work / "cases.json", work / "readings.npz"
    asked.write_text(
        json.dumps(
            [
                {
                    "pictures": [str(path.resolve()) for path in case.pictures],
                    "question": case.question,
                    "max_new_tokens": limit,
                }
                for case, limit in zip(cases, limits, strict=True)
            ]
        ),
        encoding="utf-8",
    )
    # Isolated (-I): neither this package nor the caller's paths are within reach. No bytecode (-B).
    command = [sys.executable, "-IB", str(probe.__file__), str(folder), str(asked), str(answered)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ExportError(
            f"the host cannot run the exported files (exit {done.returncode}): {last}"
        )
    with np.load(answered) as found:
        return [
            Reading(
                found[f"rows_{i}"],
                found[f"logits_{i}"],
                tuple(int(t) for t in found[f"tokens_{i}"]),
            )
            for i in range(len(cases))
        ]


def compare_readings(
    expected: Sequence[Reading],
    got: Sequence[Reading],
    precision: str,
    stop_ids: Collection[int] = (),
) -> tuple[Check, ...]:
    """Rows and logits within the precision's gate; in float32 every token equal.

    Args:
        expected: from Keras.
        got: from the host.
        precision: of the files.
        stop_ids: tokens that end an answer.

    Raises:
        ExportError: a prompt has another length.
    """
    for one, other in zip(expected, got, strict=True):
        if one.rows.shape != other.rows.shape:
            raise ExportError(
                f"the host makes {len(other.rows)} rows of a prompt, Keras {len(one.rows)}"
            )
    measure, gate = GATES[precision]
    rows, other_rows = (np.concatenate([r.rows for r in side]) for side in (expected, got))
    logits, other_logits = (np.stack([r.logits for r in side]) for side in (expected, got))
    return (
        compare_arrays("prompt rows", rows, other_rows, gate, classes=False, measure=measure),
        compare_arrays("logits after the prompt", logits, other_logits, gate, measure=measure),
        _compare_tokens(expected, got, precision),
        _compare_answers(expected, got, precision, stop_ids),
    )


def _compare_tokens(expected: Sequence[Reading], got: Sequence[Reading], precision: str) -> Check:
    """Share of tokens before the first that differs."""
    total = sum(max(len(a.tokens), len(b.tokens)) for a, b in zip(expected, got, strict=True))
    equal = sum(_equal_start(a.tokens, b.tokens) for a, b in zip(expected, got, strict=True))
    return _token_check("greedy tokens", len(expected), equal, total, precision)


def _compare_answers(
    expected: Sequence[Reading],
    got: Sequence[Reading],
    precision: str,
    stop_ids: Collection[int],
) -> Check:
    """Share of prompts whose answer, up to its stop token, is the same."""
    equal = sum(
        _until(a.tokens, stop_ids) == _until(b.tokens, stop_ids)
        for a, b in zip(expected, got, strict=True)
    )
    return _token_check("answers", len(expected), equal, len(expected), precision)


def _token_check(what: str, samples: int, equal: int, total: int, precision: str) -> Check:
    """With fewer bits than float32 agreement is reported, and does not decide."""
    exact = precision == "float32"
    limit = "all equal" if exact else "none: fewer bits may turn a close choice"
    passed = equal == total or not exact
    return Check(what, samples, None, None, None, equal / total, limit, passed)


def _until(tokens: Sequence[int], stop_ids: Collection[int]) -> tuple[int, ...]:
    """Tokens up to the first stop token."""
    return tuple(itertools.takewhile(lambda token: token not in stop_ids, tokens))


def _equal_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two answers have in common before the first that differs."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
