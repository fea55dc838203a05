"""What tf2onnx leaves in a graph and engines are slow at, rewritten as what they know."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np


def merge_pads(graph: Any) -> None:
    """Lets convolutions pad by themselves: zeros around a map that only convolutions read.

    Args:
        graph: `onnx.GraphProto`, changed in place.
    """
    constants = _constants(graph)
    readers = _readers(graph)
    merged = {}
    for node in graph.node:
        if node.op_type == "Pad" and _all_convolve(readers[node.output[0]]):
            pads = _zeros_around(node, constants)
            if pads is not None:
                merged[node.output[0]] = (node.input[0], pads)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in merged:
            node.input[0], pads = merged[node.input[0]]
            _add_pads(node, pads)
    _keep(graph, lambda node: node.output[0] not in merged)


def spell_gelus(graph: Any) -> None:
    """Writes every `0.5 x (1 + erf(x * 0.7071))` as engines recognize it.

    They look for a division by 1.4142 and for constants without axes.

    Args:
        graph: `onnx.GraphProto`, changed in place.
    """
    from onnx.numpy_helper import from_array

    constants, readers = _constants(graph), _readers(graph)
    makers = {name: node for node in graph.node for name in node.output}
    numbers = {"gelu_half": 0.5, "gelu_one": 1.0, "gelu_root": math.sqrt(2)}
    for erf in graph.node:
        before = makers.get(erf.input[0]) if erf.op_type == "Erf" else None
        x = _other(before, "Mul", math.sqrt(0.5), constants)
        after = readers[erf.output[0]]
        if before is None or x is None or len(after) != 1:
            continue
        if _other(after[0], "Add", 1.0, constants) is None:
            continue
        halves = [node for node in readers[x] if _other(node, "Mul", 0.5, constants) == x]
        before.op_type, before.input[:] = "Div", [x, "gelu_root"]
        after[0].input[:] = [erf.output[0], "gelu_one"]
        for half in halves:
            half.input[:] = [x, "gelu_half"]
    graph.initializer.extend(from_array(np.float32(v), name) for name, v in numbers.items())
    _keep(graph, lambda node: True)


def _other(node: Any, kind: str, value: float, constants: dict[str, np.ndarray]) -> str | None:
    """What a node of two inputs adds to, or multiplies, the single number `value`."""
    if node is None or node.op_type != kind:
        return None
    for place, name in enumerate(node.input):
        number = constants.get(name)
        if number is not None and number.size == 1:
            close = math.isclose(float(number.item()), value, rel_tol=1e-6)
            return str(node.input[1 - place]) if close else None
    return None


def _constants(graph: Any) -> dict[str, np.ndarray]:
    """The small constants by name."""
    from onnx.numpy_helper import to_array

    return {t.name: to_array(t) for t in graph.initializer if math.prod(t.dims) <= 64}


def _readers(graph: Any) -> dict[str, list[Any]]:
    """Name -> the nodes that read it; None stands for the graph's own outputs."""
    found: dict[str, list[Any]] = {name: [] for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    for output in graph.output:
        found.setdefault(output.name, []).append(None)
    return found


def _all_convolve(nodes: list[Any]) -> bool:
    return bool(nodes) and all(
        node is not None
        and node.op_type == "Conv"
        and all(a.s in (b"NOTSET", b"VALID") for a in node.attribute if a.name == "auto_pad")
        for node in nodes
    )


def _zeros_around(node: Any, constants: dict[str, np.ndarray]) -> list[int] | None:
    """[top, left, bottom, right] of a Pad that adds zeros to the two last of four axes."""
    if any(a.name == "mode" and a.s != b"constant" for a in node.attribute):
        return None
    if any(node.input[3:]) or node.input[1] not in constants:
        return None
    if len(node.input) > 2 and node.input[2]:
        value = constants.get(node.input[2])
        if value is None or value.item() != 0:
            return None
    pads = [int(n) for n in constants[node.input[1]]]
    if len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0:
        return None
    return [*pads[2:4], *pads[6:8]]


def _add_pads(node: Any, pads: list[int]) -> None:
    """More zeros around what a Conv reads."""
    from onnx.helper import make_attribute

    own = [0, 0, 0, 0]
    for attribute in list(node.attribute):
        if attribute.name == "pads":
            own = list(attribute.ints)
        if attribute.name in ("pads", "auto_pad"):
            node.attribute.remove(attribute)
    total = [a + b for a, b in zip(own, pads, strict=True)]
    node.attribute.append(make_attribute("pads", total))


def _keep(graph: Any, wanted: Any) -> None:
    """Drops the nodes that are not wanted, and constants that nobody reads any more."""
    nodes = [node for node in graph.node if wanted(node)]
    used = Counter(name for node in nodes for name in node.input)
    used.update(output.name for output in graph.output)
    constants = [tensor for tensor in graph.initializer if used[tensor.name]]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
