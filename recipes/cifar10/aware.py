"""Trains on with int8 rounding in the forward pass, and exports the integer kernels.

Example:
    python -m recipes.cifar10.aware --data CIFAR --work WORK --model WORK/tiny.keras --epochs 2
"""

from __future__ import annotations

from pathlib import Path

from dl_techniques.compression import calibrate, quantization_aware
from dl_techniques.export.writers.litert_trained import export_quantized
from recipes.cifar10 import baseline, common, data, results

CALIBRATED = 256


def main() -> None:
    """Calibrates, trains, saves, exports."""
    parser = common.training_parser(__doc__, epochs=2, rate=1e-4)
    parser.add_argument("--model", type=Path, required=True, help="a .keras file")
    options = parser.parse_args()
    batches, test = common.read(options)
    model = common.load(options.model)
    learner = quantization_aware(model)
    calibrate(learner, data.as_floats(batches.pictures[batches.order[:CALIBRATED]]))
    seconds = common.fine_tune(learner, options, batches, test, "aware")
    learner.save(options.work / "aware.keras")
    path = options.work / f"{options.model.stem}-int8_aware.tflite"
    pictures = options.data / "train"
    export_quantized(
        learner,
        path,
        part="classifier",
        image_size=baseline.SIZE,
        pictures=pictures,
        overwrite=True,
    )
    parameters = results.parameters_of(model)
    results.measure(path, path.stem, "qat", test, parameters, options.epochs, seconds)


if __name__ == "__main__":
    main()
