"""Training functions that TensorFlow traces once.

Keras leaves it to the first step to create an optimizer's and the metrics' variables. On TensorFlow
that step is traced, and a traced function that created variables is traced a second time, which
doubles the wait before the first step (3.15; on its other backends they are created beforehand).
"""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.compat.keras_models import build_for_training, has_strategy


class TracedOnce:
    """Creates them on TensorFlow before `fit` traces its step. Stands before `keras.Model`."""

    train_function: Any

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the training function."""
        before = self.train_function
        made = super().make_train_function(force)  # type: ignore[misc]
        function = self.train_function
        # Under a distribution strategy Keras creates the variables itself, in its scope.
        if function is before or keras.config.backend() != "tensorflow" or has_strategy(self):
            return made

        def build_and_train(batches: Any) -> Any:
            """The first step; the following ones are Keras' own."""
            self.train_function = function
            # `train_on_batch` hands over a generator, which does not tell its shapes
            if (specification := getattr(batches, "element_spec", None)) is not None:
                build_for_training(self, specification)
            return function(batches)

        self.train_function = build_and_train
        return made
