"""Trains the student under a teacher; `baseline --variant student` trains the same one alone.

Example:
    python -m tools.cifar10.distil --data CIFAR --work WORK --teacher WORK/tiny.keras --epochs 14
"""

from __future__ import annotations

from pathlib import Path

import keras

from dl_techniques.compression.distillation import distiller
from dl_techniques.compression.steps import optimizer
from tools.cifar10 import baseline, common


def main() -> None:
    """Distils, saves, exports."""
    parser = common.training_parser(__doc__, epochs=14, rate=2e-3)
    parser.add_argument("--teacher", type=Path, required=True, help="a .keras file")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--alpha", type=float, default=0.7)
    parser.add_argument("--features", action="store_true", help="learn the maps of the stages too")
    options = parser.parse_args()
    batches, test = common.read(options)
    student, teacher = baseline.network(baseline.STUDENT), common.load(options.teacher)
    teacher.reparameterize()
    pair = distiller(
        student, teacher, temperature=options.temperature, alpha=options.alpha,
        features=options.features,
    )  # fmt: skip
    pair.compile(
        optimizer(options.epochs * len(batches), options.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    seconds = common.fit(pair, batches, test, options.epochs)
    student.save(options.work / "distilled.keras")
    common.export_and_measure(
        student, "distilled-float32", "distil", "float32", options, test, options.epochs, seconds
    )


if __name__ == "__main__":
    main()
