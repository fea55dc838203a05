"""What an export says about itself: the files, and how they compare with Keras.

Example:
    >>> import numpy as np
    >>> from dl_techniques.export.report import compare_arrays
    >>> check = compare_arrays("logits", np.array([[1.0, 4.0]]), np.array([[1.0, 3.9999]]), 1e-4)
    >>> check.passed, check.agreement
    (True, 1.0)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Check:
    """One comparison of what an exported file computes with what Keras computes.

    Attributes:
        what: name of the output, or "greedy tokens".
        samples: pictures or prompts that were compared.
        max_difference: largest absolute difference; None for tokens.
        relative: the same, divided by the largest absolute value of Keras' output.
        psnr: peak signal to noise ratio in dB, the peak being that largest value; None for tokens,
            infinite for equal arrays.
        agreement: share of samples with the same answer (top class, tokens); None for maps.
        limit: the gate in words, e.g. "relative at most 0.0001".
        passed: whether the gate was passed.
    """

    what: str
    samples: int
    max_difference: float | None
    relative: float | None
    psnr: float | None
    agreement: float | None
    limit: str
    passed: bool


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was checked.

    Attributes:
        format: "litert", "onnx", ...
        part: "classifier", "features", "encoder", "vlm", ...
        precision: "float32", "float16", "int8", ...
        path: the file or folder.
        files: bytes of each file, by its name.
        runtime: what ran the files, with its version; None where they cannot be run here.
        checks: the comparisons; empty where the files cannot be run here.
        notes: what the user has to know, e.g. that numerics could not be checked.
    """

    format: str
    part: str
    precision: str
    path: str
    files: dict[str, int]
    runtime: str | None
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every comparison passed its gate."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare_arrays(
    what: str, expected: np.ndarray, got: np.ndarray, gate: float, *, classes: bool = True
) -> Check:
    """Compares an output with Keras' own.

    Args:
        what: name of the output.
        expected: float[B, ...] from Keras.
        got: float[B, ...] from the file.
        gate: largest difference allowed, relative to the largest absolute value of `expected`.
        classes: whether rows float[B, C] are scores, whose top class is compared too.

    Raises:
        ValueError: the shapes differ.
    """
    if expected.shape != got.shape:
        raise ValueError(f"{what}: Keras gives {expected.shape}, the file gives {got.shape}")
    expected, got = expected.astype("float64"), got.astype("float64")
    difference, largest = np.abs(expected - got), float(np.abs(expected).max())
    worst = float(difference.max())
    relative = worst / largest if largest > 0 else worst
    error = float(np.sqrt(np.mean(difference**2)))
    psnr = float("inf") if error == 0 else float(20 * np.log10(max(largest, 1e-30) / error))
    agreement = None
    if classes and expected.ndim == 2:
        agreement = float(np.mean(expected.argmax(-1) == got.argmax(-1)))
    # A value that is no number compares false, and fails.
    return Check(
        what,
        len(expected),
        worst,
        relative,
        psnr,
        agreement,
        f"relative at most {gate:g}",
        bool(relative <= gate),
    )
