"""Drops half of the channels of a trained classifier and fine-tunes what is left.

With `--teacher`, usually the classifier itself, what is left learns from its logits too.

Example:
    python -m recipes.cifar10.prune --data CIFAR --work WORK --model WORK/tiny.keras --epochs 5
"""

from __future__ import annotations

from pathlib import Path

from dl_techniques.compression.channel_pruning import TARGETS, prune_channels
from recipes.cifar10 import common


def main() -> None:
    """Prunes, trains, saves, exports."""
    parser = common.training_parser(__doc__, epochs=5, rate=1e-3)
    parser.add_argument("--model", type=Path, required=True, help="a .keras file")
    parser.add_argument("--fraction", type=float, default=0.5)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--importance", choices=("l1", "taylor"), default="taylor")
    common.distilling_options(parser, required=False)
    options = parser.parse_args()
    batches, test = common.read(options)
    looked_at = batches if options.importance == "taylor" else None
    smaller = prune_channels(
        common.load(options.model), options.fraction, targets=options.targets,
        importance=options.importance, data=looked_at,
    )  # fmt: skip
    name = f"pruned-{'-'.join(options.targets)}-{100 * options.fraction:.0f}"
    if options.teacher is None:
        seconds = common.fine_tune(smaller, options, batches, test, name)
    else:
        name += "-distilled"
        teacher = common.load(options.teacher)
        seconds = common.fit_under(smaller, teacher, options, batches, test, name)
    smaller.save(options.work / f"{name}.keras")
    for precision in ("float32", "int8"):
        own = f"{name}-{precision}"
        common.export_and_measure(
            smaller, own, "prune", precision, options, test, options.epochs, seconds
        )


if __name__ == "__main__":
    main()
