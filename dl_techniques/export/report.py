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
from typing import Any, Literal

import numpy as np

Measure = Literal["largest", "rms"]


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
        rms: RMS of the difference over the standard deviation of Keras' output; None for tokens.
        top5: share of samples whose top class of Keras is among the file's five best; None where
            there are no more than five.
    """

    what: str
    samples: int
    max_difference: float | None
    relative: float | None
    psnr: float | None
    agreement: float | None
    limit: str
    passed: bool
    rms: float | None = None
    top5: float | None = None


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

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ExportReport:
        """The inverse of `to_json`, also after a way through a file."""
        checks = tuple(Check(**check) for check in values["checks"])
        return cls(**{**values, "checks": checks, "notes": tuple(values["notes"])})


def compare_arrays(
    what: str,
    expected: np.ndarray,
    got: np.ndarray,
    gate: float,
    *,
    classes: bool = True,
    measure: Measure = "largest",
) -> Check:
    """Compares an output with Keras' own.

    Args:
        what: name of the output.
        expected: float[B, ...] from Keras.
        got: float[B, ...] from the file.
        gate: largest difference allowed, relative to the largest absolute value of `expected`; or
            largest RMS of the difference, relative to the standard deviation of `expected`.
        classes: whether rows float[B, C] are scores, whose top class is compared too.
        measure: which of the two the gate is for.

    Raises:
        ValueError: the shapes differ.
    """
    if expected.shape != got.shape:
        raise ValueError(f"{what}: Keras gives {expected.shape}, the file gives {got.shape}")
    expected, got = expected.astype("float64"), got.astype("float64")
    difference, largest = np.abs(expected - got), float(np.abs(expected).max())
    worst, spread = float(difference.max()), float(expected.std())
    error = float(np.sqrt(np.mean(difference**2)))
    relative = worst / largest if largest > 0 else worst
    rms = error / spread if spread > 0 else error
    scores = classes and expected.ndim == 2
    return Check(
        what,
        samples=len(expected),
        max_difference=worst,
        relative=relative,
        psnr=_psnr(error, largest),
        agreement=_among_best(expected, got, 1) if scores else None,
        limit=f"{'relative' if measure == 'largest' else 'relative RMS'} at most {gate:g}",
        # A value that is no number compares false, and fails.
        passed=bool((relative if measure == "largest" else rms) <= gate),
        rms=rms,
        top5=_among_best(expected, got, 5) if scores and expected.shape[1] > 5 else None,
    )


def _psnr(error: float, largest: float) -> float:
    """Peak signal to noise ratio in dB of an RMS error."""
    return float("inf") if error == 0 else float(20 * np.log10(max(largest, 1e-30) / error))


def _among_best(expected: np.ndarray, got: np.ndarray, number: int) -> float:
    """Share of rows whose best entry in `expected` is among the best ones in `got`."""
    best = np.argsort(-got, axis=-1, kind="stable")[:, :number]
    return float(np.mean(np.any(best == expected.argmax(-1)[:, None], axis=-1)))
