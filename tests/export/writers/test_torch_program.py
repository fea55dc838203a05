"""Programs of torch.export, loaded anew."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.export.gates import compare_outputs
from dl_techniques.export.writers import torch_program
from dl_techniques.export.writers.job import Job
from tests.export.small_exports import backend_is, small, subject_of, written

pytestmark = pytest.mark.skipif(not backend_is("torch"), reason="written by PyTorch")


def test_a_free_batch(tmp_path: Path) -> None:
    subject = subject_of(small(), "features", dynamic_batch=True)
    path = tmp_path / "m.pt2"
    _, expected, got = written(torch_program, subject, path)
    assert all(c.passed for c in compare_outputs(expected, got, "float32"))
    run = torch_program.open_file(path, Job("float32", None, ()))
    together = run(np.concatenate(subject.inputs(None, 4)))
    assert all(c.passed for c in compare_outputs(expected, together, "float32"))


def test_image_programs_give_the_outputs_in_order() -> None:
    subject = subject_of(small(), "features")
    (picture,) = subject.inputs(None, 4)[:1]
    expected = subject.expected([picture])
    names = ("stage_2", "stem", "stage_1")
    module = torch_program.as_module(subject.deployed, names)
    image = keras.ops.convert_to_tensor(picture.transpose(0, 3, 1, 2).copy())
    got = [keras.ops.convert_to_numpy(value) for value in module(image)]
    checks = compare_outputs(expected, dict(zip(names, got, strict=True)), "float32")
    assert all(check.passed for check in checks)
