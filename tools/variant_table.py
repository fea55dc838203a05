"""Prints the table of variants: sizes, parameters branched and fused, multiply-adds fused.

Multiply-adds are counted from the shapes of the layers while the network is traced, not run:
an output position of a convolution or dense layer costs one per number of its kernel, and
attention over N positions of C channels costs 2 * N * N * C more. Biases, norms, activations
and poolings are not counted. Parameters are what training moves: statistics of norms are not.

Example:
    python -m tools.variant_table nano base mobileone_s1
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

GIGA = 1e9
MEGA = 1e6
HEADER = ("variant", "input", "features", "stride", "parameters (M)", "fused (M)", "GMACs fused")


def leaf_macs(layer: keras.layers.Layer, output_shape: Sequence[int]) -> int:
    """Multiply-adds of one convolution or dense layer; the output is that of a single sample.

    Places may lie on the first axis: layers on TensorFlow flatten maps to matrices.
    """
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    return math.prod(kernel.shape) * math.prod(output_shape[:-1])


def attention_macs(layer: keras.layers.Layer, input_shape: Sequence[int]) -> int:
    """Multiply-adds of the two products of self-attention for one sample."""
    if not (hasattr(layer, "num_heads") and hasattr(layer, "qkv")):
        return 0
    positions = math.prod(input_shape[1:-1])
    return 2 * positions * positions * int(input_shape[-1])


class Tracer(keras.Operation):
    """Calls a model on symbolic tensors all the way down to its innermost layers."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def call(self, x: Any) -> Any:
        """The model's own forward pass."""
        return self.model(x, training=False)


def count_macs(model: keras.Model, input_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one forward pass of one picture.

    Args:
        model: a built model of pictures.
        input_shape: (height, width, channels).

    Returns:
        The number of multiply-adds.
    """
    seen: dict[int, int] = {}
    layers = [layer for layer in model._flatten_layers() if layer is not model]

    def watch(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(x: Any, *args: Any, **kwargs: Any) -> Any:
            y = call(x, *args, **kwargs)
            if hasattr(y, "shape"):
                seen[id(layer)] = leaf_macs(layer, y.shape) + attention_macs(layer, x.shape)
            return y

        return watched

    originals = [(layer, layer.call) for layer in layers if relevant(layer)]
    for layer, call in originals:
        layer.call = watch(layer, call)
    try:
        Tracer(model)(keras.KerasTensor((1, *input_shape)))
    finally:
        for layer, _ in originals:
            del layer.call
    return sum(seen.values())


def relevant(layer: keras.layers.Layer) -> bool:
    """Whether multiply-adds are counted at this layer."""
    return hasattr(layer, "kernel") or (hasattr(layer, "num_heads") and hasattr(layer, "qkv"))


def count_parameters(model: keras.Model) -> int:
    """Numbers that training moves."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def networks() -> dict[str, Any]:
    """Every variant's name -> its class."""
    from dl_techniques import FastVLM, MobileOne

    return {name: cls for cls in (FastVLM, MobileOne) for name in cls.MODEL_VARIANTS}


def measure(name: str) -> tuple[str, ...]:
    """The row of one variant, without its classifier."""
    cls = networks()[name]
    size = cls.MODEL_VARIANTS[name].image_size
    model = cls.from_variant(name, include_top=False, input_shape=(size, size, 3))
    branched = count_parameters(model)
    model.reparameterize()
    return (
        name,
        f"{size} x {size}",
        str(model.feature_dim),
        str(model.total_stride),
        f"{branched / MEGA:.2f}",
        f"{count_parameters(model) / MEGA:.2f}",
        f"{count_macs(model, (size, size, 3)) / GIGA:.2f}",
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first as its header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of the named variants, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", metavar="variant", help="names (default: all)")
    names = parser.parse_args(argv).variants or list(networks())
    print(table([HEADER, *(measure(name) for name in names)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
