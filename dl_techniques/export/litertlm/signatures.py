"""The inputs and outputs of a LiteRT file, signature by signature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_techniques.errors import ExportError

PREFILL = re.compile(r"prefill_(\d+)")


@dataclass(frozen=True)
class TensorSpec:
    """Data type and shape of an input or output."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SignatureSpec:
    """Inputs and outputs of one signature by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


Signatures = Mapping[str, SignatureSpec]


def read_signatures(path: str | Path) -> Signatures:
    """The signatures of a LiteRT file, without running it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    result = {}
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        result[name] = SignatureSpec(
            _specs(runner.get_input_details()), _specs(runner.get_output_details())
        )
    return result


def _specs(details: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(entry["dtype"].__name__, tuple(int(n) for n in entry["shape"]))
        for name, entry in details.items()
    }


def prefill_lengths(signatures: Signatures) -> list[int]:
    """Rows of every `prefill_N`, in order."""
    found = [PREFILL.fullmatch(name) for name in signatures]
    return sorted(int(match[1]) for match in found if match)


def caches_of(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The caches among the inputs or outputs."""
    return {name: spec for name, spec in tensors.items() if name.startswith("kv_cache_")}


def only(signatures: Signatures, name: str) -> tuple[TensorSpec, TensorSpec]:
    """Input and output of a file that has one of each.

    Raises:
        ExportError: it has several signatures, inputs or outputs.
    """
    if len(signatures) != 1:
        raise ExportError(f"{name}.tflite must have one signature, it has {sorted(signatures)}")
    (signature,) = signatures.values()
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise ExportError(
            f"{name}.tflite must have one input and one output, it has "
            f"{sorted(signature.inputs)} and {sorted(signature.outputs)}"
        )
    return next(iter(signature.inputs.values())), next(iter(signature.outputs.values()))
