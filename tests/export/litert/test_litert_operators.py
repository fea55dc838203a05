"""Operators and types are read from the file itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litert.litert_operators import (
    operators_of,
    refuse_foreign_operators,
    stored_types,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="needs ai-edge-litert"
)


def write_file(path: Path, custom: bytes | None) -> Path:
    """A LiteRT file of one addition, and of an operator of somebody else's if wanted."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = b"\0" * 12
    codes = [(schema.BuiltinOperator.ADD, None)]
    codes += [] if custom is None else [(schema.BuiltinOperator.CUSTOM, custom)]
    model.operatorCodes, graph.operators = [], []
    for index, (builtin, name) in enumerate(codes):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.customCode = name
        operator.opcodeIndex = index
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    tensor = schema.TensorT()
    tensor.buffer, tensor.type = 1, schema.TensorType.INT8
    graph.tensors = [tensor]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_operators_and_types_of_a_plain_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "m.tflite", None)
    assert refuse_foreign_operators(path) == operators_of(path) == {"ADD": 1}
    assert stored_types(path) == {"int8": 12}


@pytest.mark.parametrize("name", [b"FlexErf", b"MyOwn"])
def test_foreign_operators_are_refused_by_name(tmp_path: Path, name: bytes) -> None:
    path = write_file(tmp_path / "m.tflite", name)
    with pytest.raises(ExportError, match=f"not built into LiteRT: CUSTOM:{name.decode()}"):
        refuse_foreign_operators(path)
