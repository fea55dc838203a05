"""OpenVINO files, run by OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.export.gates import compare_outputs
from dl_techniques.export.writers import openvino_file
from dl_techniques.export.writers.job import Job
from tests.export.small_exports import backend_is, small, subject_of, written

pytestmark = pytest.mark.skipif(not backend_is("tensorflow"), reason="written by TensorFlow")


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.full), "float16"])
def test_weights_stand_beside_the_file(tmp_path: Path, precision: str) -> None:
    subject = subject_of(small(), "features", dynamic_batch=True)
    path = tmp_path / "m.xml"
    notes, expected, got = written(openvino_file, subject, path, precision)
    assert all(c.passed for c in compare_outputs(expected, got, precision))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert any("m.bin, which must stay beside m.xml" in note for note in notes)
    per_number = path.with_suffix(".bin").stat().st_size / subject.deployed.count_params()
    assert (3.9 < per_number < 4.6) if precision == "float32" else (1.9 < per_number < 2.8)
    assert 'image value="RGB in [0, 1]"' in path.read_text()
    run = openvino_file.open_file(path, Job(precision, None, tuple(expected)))
    together = run(np.concatenate(subject.inputs(None, 4)))
    assert all(c.passed for c in compare_outputs(expected, together, precision))
