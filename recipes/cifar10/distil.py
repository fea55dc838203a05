"""Trains the student under a teacher; `baseline --variant student` trains the same one alone.

Example:
    python -m recipes.cifar10.distil --data CIFAR --work WORK --teacher WORK/tiny.keras --epochs 14
"""

from __future__ import annotations

from recipes.cifar10 import baseline, common


def main() -> None:
    """Distils, saves, exports."""
    parser = common.training_parser(__doc__, epochs=14, rate=2e-3)
    common.distilling_options(parser, required=True)
    parser.add_argument("--features", action="store_true", help="learn the maps of the stages too")
    options = parser.parse_args()
    batches, test = common.read(options)
    student, teacher = baseline.network(baseline.STUDENT), common.load(options.teacher)
    seconds = common.fit_under(
        student, teacher, options, batches, test, "distilled", options.features
    )
    student.save(options.work / "distilled.keras")
    common.export_and_measure(
        student, "distilled-float32", "distil", "float32", options, test, options.epochs, seconds
    )


if __name__ == "__main__":
    main()
