"""How every run trains: through `Stage`, measured on the test pictures after each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.training import Stage
from recipes.cifar10 import data


def fit(
    model: Any,
    batches: data.Batches,
    test: tuple[np.ndarray, np.ndarray],
    epochs: int,
    folder: Path,
) -> float:
    """Trains a compiled model, or goes on after a kill.

    Args:
        model: what learns.
        batches: to learn from.
        test: pictures and labels.
        epochs: over the batches.
        folder: of the training's state.

    Returns:
        The seconds of training, those before a kill with them.
    """
    stage = Stage(
        model,
        batches,
        steps=epochs * len(batches),
        validation=(data.as_floats(test[0]), test[1]),
        settings={"seed": batches.seed, "batch_size": batches.batch_size},
        verbose=2,
    )
    return stage.run(folder).seconds
