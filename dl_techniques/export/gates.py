"""How far an exported file may be from Keras.

float32 files must agree up to rounding: the largest difference over the largest value. Fewer bits
change every number a little, so there the error's RMS over the output's standard deviation is
limited: 0 is equal, 1 is as wrong as a constant would be. The limits lie between what sound
conversions of networks with random weights gave (float16 0.0006 to 0.002, int8 0.02 to 0.04, static
int8 0.05 to 0.19, int4 0.17 to 0.31) and what silently wrong ones give (0.9 and more). They are
loose on purpose: whether the accuracy is good enough, only labelled pictures can tell. A network of
a few thousand weights with random values went beyond the limit of int4 (0.61).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dl_techniques.errors import ExportError
from dl_techniques.export.report import Check, Measure, compare_arrays

GATES: Mapping[str, tuple[Measure, float]] = {
    "float32": ("largest", 1e-4),
    "float16": ("rms", 0.01),
    "int8": ("rms", 0.15),
    "int8_weights": ("rms", 0.15),
    "int8_static": ("rms", 0.3),
    "int4_weights": ("rms", 0.6),
}


def compare_outputs(
    expected: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    precision: str,
    remark: str = "",
    limit: float | None = None,
) -> tuple[Check, ...]:
    """Compares all outputs of a file with Keras'.

    Args:
        expected: name -> float[B, ...] from Keras.
        got: the same from the file.
        precision: which gate to take.
        remark: goes behind the names.
        limit: replaces the gate's number.

    Raises:
        ExportError: another set of outputs, or another shape.
    """
    if set(expected) != set(got):
        raise ExportError(
            f"the file has the outputs {sorted(got)}, expected {sorted(expected)}; it is not kept"
        )
    measure, usual = GATES[precision]
    gate = usual if limit is None else limit
    checks = []
    for name, values in expected.items():
        if values.shape != got[name].shape:
            raise ExportError(
                f"the file's {name} has the shape {got[name].shape}, Keras' has {values.shape}; it "
                "is not kept"
            )
        checks.append(compare_arrays(name + remark, values, got[name], gate, measure=measure))
    return tuple(checks)


def refuse_failed(checks: tuple[Check, ...], where: str) -> None:
    """Raises for the worst check that is beyond its gate.

    Raises:
        ExportError: the file computes something else.
    """
    failed = [check for check in checks if not check.passed]
    if not failed:
        return
    worst = failed[0]
    figures = [f"largest difference {worst.max_difference:.3g}"] if worst.max_difference else []
    if worst.relative is not None:
        figures.append(f"relative {worst.relative:.3g}")
    if worst.rms is not None:
        figures.append(f"relative RMS {worst.rms:.3g}")
    if worst.agreement is not None:
        figures.append(f"agreement {worst.agreement:.3g}")
    raise ExportError(
        f"{where} does not compute what Keras computes: {worst.what} is beyond its gate "
        f"({worst.limit}; {', '.join(figures) or 'no numbers'}), so no file is kept"
    )
