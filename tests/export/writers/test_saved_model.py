"""TensorFlow's own format, loaded anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dl_techniques.export.gates import compare_outputs
from dl_techniques.export.writers import saved_model
from tests.export.small_exports import backend_is, small, subject_of, written

pytestmark = pytest.mark.skipif(not backend_is("tensorflow"), reason="written by TensorFlow")

WITHOUT_KERAS = """
import sys
import numpy as np
sys.modules["keras"] = None
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = tf.constant(np.load(sys.argv[2]))
np.save(sys.argv[3], loaded.signatures["serving_default"](image=images)["logits"].numpy())
"""


def test_a_free_batch(tmp_path: Path) -> None:
    subject = subject_of(small(), "features", dynamic_batch=True)
    _, expected, got = written(saved_model, subject, tmp_path / "m")
    assert all(c.passed for c in compare_outputs(expected, got, "float32"))
    assert saved_model.runtime().startswith("tensorflow ")


@pytest.mark.full
def test_it_runs_without_keras(tmp_path: Path) -> None:
    subject = subject_of(small(), dynamic_batch=True)
    _, expected, got = written(saved_model, subject, tmp_path / "m")
    assert compare_outputs(expected, got, "float32")[0].passed
    np.save(tmp_path / "in.npy", np.concatenate(subject.inputs(None, 4)))
    places = [str(tmp_path / name) for name in ("m", "in.npy", "out.npy")]
    subprocess.run([sys.executable, "-c", WITHOUT_KERAS, *places], check=True, capture_output=True)
    together = {"logits": np.load(tmp_path / "out.npy")}
    assert compare_outputs(expected, together, "float32")[0].passed
