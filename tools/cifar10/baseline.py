"""Trains a classifier on CIFAR-10 and saves it: the float32 model that the others start from.

Example:
    python -m tools.cifar10.baseline --data CIFAR --variant tiny --epochs 14 --output tiny.keras
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras

from dl_techniques import FastVLM
from tools.cifar10 import data

SIZE = 32


def network(variant: str) -> FastVLM:
    """The classifier, untrained; without the regularisation that such short runs do not need."""
    return FastVLM.from_variant(
        variant,
        num_classes=len(data.CLASSES),
        input_shape=(SIZE, SIZE, 3),
        dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale_init=0.1,
    )


def compile_for(model: keras.Model, steps: int, learning_rate: float = 2e-3) -> None:
    """AdamW with a cosine schedule over `steps`, after a short warm-up."""
    warm_up = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 20, steps - warm_up, warmup_target=learning_rate, warmup_steps=warm_up
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.05, clipnorm=1.0),
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
    held_out = (data.as_floats(test[0]), test[1])
    model.fit(batches, epochs=options.epochs, validation_data=held_out, verbose=2)
    model.save(options.output)


if __name__ == "__main__":
    main()
