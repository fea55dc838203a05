"""ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.gates import compare_outputs
from dl_techniques.export.writers import onnx_file
from dl_techniques.export.writers.job import Job
from tests.export.small_exports import backend_is, small, subject_of, written

pytestmark = pytest.mark.skipif(not backend_is("tensorflow"), reason="written by TensorFlow")


def test_a_free_batch_in_float32(tmp_path: Path) -> None:
    import onnx

    subject = subject_of(small(), dynamic_batch=True)
    path = tmp_path / "m.onnx"
    _, expected, got = written(onnx_file, subject, path)
    (check,) = compare_outputs(expected, got, "float32")
    assert check.passed
    graph = onnx.load(path).graph
    assert [i.name for i in graph.input] == ["image"] and [o.name for o in graph.output] == [
        "logits"
    ]
    assert not {node.op_type for node in graph.node if node.domain not in ("", "ai.onnx")}
    constants = {tensor.name for tensor in graph.initializer}
    assert not [node for node in graph.node if node.input and constants.issuperset(node.input)]
    run = onnx_file.open_file(path, Job("float32", None, ()))
    together = run(np.concatenate(subject.inputs(None, 4)))
    assert compare_outputs(expected, together, "float32")[0].passed


def test_engines_find_what_they_know(tmp_path: Path) -> None:
    """No map is padded, or flattened for a ConvFFN, and every GELU is one operator."""
    import onnx
    import onnxruntime

    path, optimized = tmp_path / "m.onnx", tmp_path / "optimized.onnx"
    written(onnx_file, subject_of(small(), "features"), path)
    nodes = onnx.load(path).graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert not kinds["Pad"] and kinds["Erf"] > 3
    assert {n.op_type for n in nodes if "conv_ffn" in n.name} == {
        "Conv",
        "Mul",
        "Div",
        "Erf",
        "Add",
    }
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4  # it warns that such a file is for this machine alone
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    assert known["Gelu"] == kinds["Erf"] and not known["Erf"]


def test_float16_inside_float32_outside(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "m.onnx"
    _, expected, got = written(onnx_file, subject_of(small(), "features"), path, "float16")
    assert all(c.passed for c in compare_outputs(expected, got, "float16"))
    assert not all(c.passed for c in compare_outputs(expected, got, "float32"))
    model = onnx.load(path)
    assert [(p.key, p.value) for p in model.metadata_props] == [("image", "RGB in [0, 1]")]
    types = {value.type.tensor_type.elem_type for value in model.graph.output}
    assert types == {onnx.TensorProto.FLOAT}
    large = [w for w in model.graph.initializer if np.prod(w.dims) > 64]
    assert {w.data_type for w in large} == {onnx.TensorProto.FLOAT16}


def test_what_no_file_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(ExportError, match="more than 2 GB"):
        written(onnx_file, subject_of(small()), tmp_path / "m.onnx")
