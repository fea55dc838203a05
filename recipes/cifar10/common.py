"""What the runs share: options, pictures, training, and a file that is measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques import FastVLM
from dl_techniques.compression.distillation import distiller
from dl_techniques.compression.optimization.steps import optimizer
from dl_techniques.export import export_model
from recipes.cifar10 import baseline, data, results
from recipes.cifar10.fitting import fit

Arrays = tuple[np.ndarray, np.ndarray]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every run."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    made.add_argument("--work", type=Path, required=True, help="where files and results go")
    made.add_argument("--limit", type=int, help="pictures of each class, for a trial")
    made.add_argument("--seed", type=int, default=0)
    return made


def training_parser(description: str | None, epochs: int, rate: float) -> argparse.ArgumentParser:
    """The options of a run that trains."""
    made = parser(description)
    made.add_argument("--epochs", type=int, default=epochs)
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--learning-rate", type=float, default=rate)
    return made


def read(options: argparse.Namespace) -> tuple[data.Batches, Arrays]:
    """Batches to train on, and the test pictures; seeds everything."""
    keras.utils.set_random_seed(options.seed)
    train = data.load(options.data, "train", options.limit)
    batches = data.Batches(*train, options.batch_size, options.seed)
    return batches, data.load(options.data, "test", options.limit)


def fine_tune(
    model: Any, options: argparse.Namespace, batches: data.Batches, test: Arrays, name: str
) -> float:
    """Compiles and trains as the baseline was, at the rate of the options."""
    baseline.compile_for(model, options.epochs * len(batches), options.learning_rate)
    return fit(model, batches, test, options.epochs, training_folder(options, name))


def fit_under(
    student: Any, teacher: FastVLM, options: argparse.Namespace, batches: data.Batches,
    test: Arrays, name: str, features: bool = False,
) -> float:  # fmt: skip
    """Trains a student under a teacher, with the options of `distilling_options`."""
    teacher.reparameterize()
    pair = distiller(
        student, teacher, temperature=options.temperature, alpha=options.alpha, features=features
    )
    pair.compile(
        optimizer(options.epochs * len(batches), options.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return fit(pair, batches, test, options.epochs, training_folder(options, name))


def training_folder(options: argparse.Namespace, name: str) -> Path:
    """Where a run keeps the state of its training."""
    work: Path = options.work
    return work / f"{name}.training"


def distilling_options(made: argparse.ArgumentParser, required: bool) -> None:
    """Adds the options of `fit_under`."""
    made.add_argument("--teacher", type=Path, required=required, help="a .keras file")
    made.add_argument("--temperature", type=float, default=4.0)
    made.add_argument("--alpha", type=float, default=0.7)


def load(path: Path) -> FastVLM:
    """A network that one of the runs saved."""
    return FastVLM.from_preset(path)


def export(model: FastVLM, name: str, precision: str, options: argparse.Namespace) -> Path:
    """Writes `WORK/NAME.tflite`, compared with Keras, calibrated on training pictures."""
    path = options.work / f"{name}.tflite"
    folder = options.data / "train"
    export_model(
        model, path, "litert", part="classifier", image_size=baseline.SIZE, precision=precision,
        pictures=folder, calibration=folder if precision == "int8_static" else None,
        overwrite=True,
    )  # fmt: skip
    return path


def export_and_measure(
    model: FastVLM, name: str, step: str, precision: str, options: argparse.Namespace,
    test: Arrays, epochs: int = 0, seconds: float = 0.0,
) -> results.Result:  # fmt: skip
    """A row of the table: the file, its size, its accuracy, its speed."""
    path = export(model, name, precision, options)
    parameters = results.parameters_of(model)
    return results.measure(path, name, step, test, parameters, epochs, seconds)
