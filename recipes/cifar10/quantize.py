"""Quantizes a trained classifier for LiteRT in every precision, without training.

Example:
    python -m recipes.cifar10.quantize --data CIFAR --work WORK --model WORK/tiny.keras
"""

from __future__ import annotations

from pathlib import Path

from dl_techniques.export.litert.litert_precision import PRECISIONS
from recipes.cifar10 import common, data


def main() -> None:
    """One file a precision."""
    parser = common.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a .keras file")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all")
    parser.add_argument("--step", default="quantize", help="part of the table")
    parser.add_argument("--epochs", type=int, default=0, help="that the model was trained for")
    options = parser.parse_args()
    test = data.load(options.data, "test", options.limit)
    model = common.load(options.model)
    for precision in options.precision or PRECISIONS:
        name = f"{options.model.stem}-{precision}"
        common.export_and_measure(
            model, name, options.step, precision, options, test, options.epochs
        )


if __name__ == "__main__":
    main()
