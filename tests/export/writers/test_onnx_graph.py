"""Rewritten graphs compute the same; what looks alike but is another thing stays."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dl_techniques.export.writers.onnx_graph import merge_pads, spell_gelus

pytestmark = pytest.mark.once

SHAPE = (1, 2, 5, 6)


def graph_of(nodes: list[Any], **constants: np.ndarray) -> Any:
    """A model from `x` to `y`."""
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, SHAPE)], [value("y", TensorProto.FLOAT, None)],
        tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def result(model: Any) -> np.ndarray:
    """What it computes."""
    x = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    found: np.ndarray = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return found


def kernel(size: int) -> np.ndarray:
    """float[3, 2, size, size]."""
    return np.random.default_rng(1).normal(size=(3, 2, size, size)).astype("float32")


def padded(pads: list[int], value: float = 0.0, mode: str = "constant", **conv: Any) -> Any:
    """A Pad and a Conv behind it."""
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["p"], mode=mode),
        helper.make_node("Conv", ["p", "w"], ["y"], **conv),
    ]
    return graph_of(nodes, pads=np.array(pads), value=np.float32(value), w=kernel(3))


@pytest.mark.parametrize("conv", [{}, {"auto_pad": "VALID"}, {"pads": [0, 1, 0, 1]}])
def test_zeros_go_into_the_convolution(conv: dict[str, Any]) -> None:
    model = padded([0, 0, 1, 0, 0, 0, 2, 1])
    model.graph.node[1].attribute.extend(helper.make_attribute(k, v) for k, v in conv.items())
    before = result(model)
    merge_pads(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]
    np.testing.assert_array_equal(result(model), before)


@pytest.mark.parametrize(
    ("pads", "other"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], {"value": 2.0}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"mode": "reflect"}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"auto_pad": "SAME_UPPER"}),
        ([0, 0, -1, 1, 0, 0, 1, 1], {}),
    ],
)
def test_other_pads_stay(pads: list[int], other: dict[str, Any]) -> None:
    model = padded(pads, **other)
    before = model.SerializeToString()
    merge_pads(model.graph)
    assert model.SerializeToString() == before


def test_a_padded_map_that_others_read_stays() -> None:
    model = padded([0, 0, 1, 1, 0, 0, 1, 1])
    model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, None))
    merge_pads(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Pad", "Conv"]


def erf_graph(inner: float, one: float = 1.0, half: float = 0.5) -> Any:
    """x half (one + erf(x inner)), the constants with four axes."""
    nodes = [
        helper.make_node("Mul", ["x", "inner"], ["a"]),
        helper.make_node("Mul", ["half", "x"], ["b"]),
        helper.make_node("Erf", ["a"], ["c"]),
        helper.make_node("Add", ["one", "c"], ["d"]),
        helper.make_node("Mul", ["b", "d"], ["y"]),
    ]
    numbers = {"inner": inner, "one": one, "half": half}
    return graph_of(nodes, **{k: np.full((1, 1, 1, 1), v, "float32") for k, v in numbers.items()})


def test_a_gelu_is_spelt_out() -> None:
    model = erf_graph(0.5**0.5)
    before = result(model)
    spell_gelus(model.graph)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds == {"Div": 1, "Erf": 1, "Add": 1, "Mul": 2}
    assert all(not tensor.dims for tensor in model.graph.initializer)
    np.testing.assert_allclose(result(model), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("numbers", [(0.5,), (0.5**0.5, 2.0)])
def test_another_function_stays(numbers: tuple[float, ...]) -> None:
    model = erf_graph(*numbers)
    before = model.SerializeToString()
    spell_gelus(model.graph)
    assert model.SerializeToString() == before
