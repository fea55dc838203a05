"""Which operators of a LiteRT file are quantized how: the recipe for ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dl_techniques.errors import CompressionError

WEIGHT_OPS = (
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_2D_TRANSPOSE",
    "DEPTHWISE_CONV_2D",
    "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED",
)
BLOCK_OPS = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
"""Operators that have kernels for int4 weights with a scale for each block."""


@dataclass(frozen=True)
class Operator:
    """An operator that has weights.

    Attributes:
        output: name of its output, by which the quantizer finds it.
        kind: e.g. "CONV_2D".
        weights: name of its weights.
        shape: of its weights.
    """

    output: str
    kind: str
    weights: str
    shape: tuple[int, ...]


def operators_with_weights(content: bytes) -> list[Operator]:
    """The operators of all graphs whose weights can be quantized.

    Args:
        content: of a `.tflite` file.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(bytearray(content))
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            kind = flatbuffer.TFL_OP_CODE_TO_NAME.get(code)
            if kind is None or kind.value not in WEIGHT_OPS:
                continue
            weights = graph.tensors[operator.inputs[1]]
            output = flatbuffer.get_op_scope(operator, graph.tensors)
            shape = tuple(int(side) for side in weights.shape)
            found.append(Operator(output, kind.value, weights.name.decode(), shape))
    return found


def _kept(operators: Sequence[Operator], skip: Sequence[str]) -> list[str]:
    """Outputs of the operators to leave alone; a pattern that finds none is a typing error."""
    kept = []
    for pattern in skip:
        try:
            found = [o.output for o in operators if re.search(pattern, o.weights)]
        except re.error as error:
            raise CompressionError(f"skip {pattern!r} is no regular expression: {error}") from error
        if not found:
            raise CompressionError(
                f"skip {pattern!r} finds none of the {len(operators)} weights, such as "
                + ", ".join(repr(o.weights.split(";")[0]) for o in operators[-2:])
            )
        kept += found
    return kept


def _without_blocks(operators: Sequence[Operator], block_size: int) -> list[str]:
    """Outputs of the dense layers and embeddings that cannot be cut into blocks of this size."""
    sizes = {o.output: o.shape[-1] for o in operators if o.kind in BLOCK_OPS}
    whole = [name for name, size in sizes.items() if size % block_size]
    if len(whole) == len(sizes):
        raise CompressionError(
            f"no layer can be cut into blocks of {block_size}: inner sizes are "
            f"{sorted(set(sizes.values()))}; leave block_size out"
        )
    return whole


def quantizer_recipe(
    content: bytes, precision: str, block_size: int | None = None, skip: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The recipe of ai-edge-quantizer; later entries win.

    int4 has no depthwise kernels: those weights get 8 bits.

    Args:
        content: of a float32 `.tflite` file.
        precision: "float16", "int8", "int8_weights" or "int4_weights".
        block_size: so many weights of `BLOCK_OPS` share a scale; None: a whole channel.
        skip: regular expressions; weights in whose name one of them is found stay float32.

    Raises:
        CompressionError: a pattern that finds nothing, or blocks that fit no layer.
    """
    operators = operators_with_weights(content)
    whole = _without_blocks(operators, block_size) if block_size else []
    dynamic = precision == "int8"
    bits = {"float16": 16, "int8": 8, "int8_weights": 8, "int4_weights": 8}[precision]
    rules = [_rule(".*", "*", bits, dynamic)]
    if precision == "int4_weights":
        for op in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP", "CONV_2D", "BATCH_MATMUL"):
            blocks = block_size if op in BLOCK_OPS else None
            rules.append(_rule(".*", op, 4, dynamic=blocks is not None, block_size=blocks))
        rules += [_rule(_exactly(name), op, 4, False) for name in whole for op in BLOCK_OPS]
    for name in _kept(operators, skip):
        rules.append({"regex": _exactly(name), "operation": "*", "algorithm_key": "no_quantize"})
    return rules


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


def _rule(
    regex: str, op: str, bits: int, dynamic: bool, block_size: int | None = None
) -> dict[str, Any]:
    """One entry of a recipe: which operators, how many bits, and who makes floats of them."""
    weights = {
        "num_bits": bits,
        "symmetric": True,
        "granularity": f"BLOCKWISE_{block_size}" if block_size else "CHANNELWISE",
        "dtype": "FLOAT" if bits == 16 else "INT",
    }
    return {
        "regex": regex,
        "operation": op,
        "algorithm_key": "float_casting" if bits == 16 else "min_max_uniform_quantize",
        "op_config": {
            "weight_tensor_config": weights,
            "compute_precision": "INTEGER" if dynamic else "FLOAT",
            "explicit_dequantize": not dynamic,
        },
    }
