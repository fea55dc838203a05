"""Trains a classifier on CIFAR-10 and saves it: the float32 model that the others start from.

"student" is a quarter of tiny: half of its channels in every stage.

Example:
    python -m recipes.cifar10.baseline --data CIFAR --variant tiny --epochs 14 --output tiny.keras
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras

from dl_techniques import FastVLM
from dl_techniques.compression.optimization.steps import optimizer
from recipes.cifar10 import data
from recipes.cifar10.fitting import fit

SIZE = 32
STUDENT = "student"
OF_STUDENT = {"embed_dims": (16, 32, 64), "num_heads": (1, 1, 2), "name": "fast_vlm_student"}


def network(variant: str) -> FastVLM:
    """The classifier, untrained; without the regularisation that such short runs do not need."""
    is_student = variant == STUDENT
    return FastVLM.from_variant(
        "tiny" if is_student else variant,
        **(OF_STUDENT if is_student else {}),
        num_classes=len(data.CLASSES),
        input_shape=(SIZE, SIZE, 3),
        dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale_init=0.1,
    )


def compile_for(model: keras.Model, steps: int, learning_rate: float = 2e-3) -> None:
    """AdamW with a warm-up and a cosine over `steps`; cross-entropy from logits."""
    model.compile(
        optimizer(steps, learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def main() -> None:
    """Trains and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--limit", type=int, help="pictures of each class, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="a .keras file")
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    train = data.load(options.data, "train", options.limit)
    test = data.load(options.data, "test", options.limit)
    batches = data.Batches(*train, options.batch_size, options.seed)
    model = network(options.variant)
    compile_for(model, options.epochs * len(batches))
    folder = options.output.with_suffix(".training")
    fit(model, batches, test, options.epochs, folder)
    model.save(options.output)


if __name__ == "__main__":
    main()
