"""Which operators a LiteRT file consists of, read from the file itself.

Example:
    >>> from dl_techniques.export.litert.litert_operators import operators_of
    >>> operators_of("model.tflite")  # doctest: +SKIP
    {'CONV_2D': 13, 'GELU': 11, ...}
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dl_techniques.errors import ExportError

CUSTOM = "CUSTOM"


def operators_of(path: str | Path) -> dict[str, int]:
    """Operator -> how often it occurs, over all signatures; the most frequent first.

    An operator that is not built in has its own name after "CUSTOM:".
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(Path(path).read_bytes(), 0)
    words = {n: w for w, n in vars(schema.BuiltinOperator).items() if isinstance(n, int)}
    names = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        # Old files have the number in the first field, new ones in the second.
        word = words[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        custom = code.CustomCode()
        names.append(f"{CUSTOM}:{custom.decode()}" if word == CUSTOM and custom else word)
    counts: Counter[str] = Counter()
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for place in range(graph.OperatorsLength()):
            counts[names[graph.Operators(place).OpcodeIndex()]] += 1
    return dict(counts.most_common())


def stored_types(path: str | Path) -> dict[str, int]:
    """Type -> bytes of constants that are stored in it, the most bytes first.

    It shows what a precision has really changed: LiteRT leaves arrays of less than 1024 numbers
    and some layers alone, without a word.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(Path(path).read_bytes(), 0)
    words = {n: w for w, n in vars(schema.TensorType).items() if isinstance(n, int)}
    counts: Counter[str] = Counter()
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for place in range(graph.TensorsLength()):
            tensor = graph.Tensors(place)
            counts[words[tensor.Type()].lower()] += model.Buffers(tensor.Buffer()).DataLength()
    return {name: size for name, size in counts.most_common() if size}


def refuse_foreign_operators(path: str | Path) -> dict[str, int]:
    """Refuses a file that the plain runtime of a phone cannot run.

    Returns:
        The operators, as `operators_of`.

    Raises:
        ExportError: an operator is not built in (TensorFlow's own begin with "Flex").
    """
    operators = operators_of(path)
    foreign = [name for name in operators if name.startswith(CUSTOM)]
    if foreign:
        raise ExportError(
            f"{Path(path).name} needs operators that are not built into LiteRT: "
            f"{', '.join(foreign)}; no file is kept"
        )
    return operators
