"""`keras.models.clone_model` of a whole model, which it cannot clone.

It copies the layers of a functional model one by one. The embedding table that also gives the
logits would become two, `generate` would be gone, and `compile` would not know the sampler.
"""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.errors import DLTechniquesError
from dl_techniques.typing import Tensor


class RefusesCloning:
    """Says how a model is copied instead. Stands before `keras.Model`."""

    name: str
    backbone: Any

    def _run_through_graph(self, inputs: Tensor, operation_fn: Any = None, **kwargs: Any) -> Any:
        """Keras' walk along the graph (3.15), which `clone_model` does with copies of the layers.

        Raises:
            DLTechniquesError: so.
        """
        if operation_fn is None:
            return super()._run_through_graph(inputs, **kwargs)  # type: ignore[misc]
        stand_in = operation_fn(self.backbone)
        if isinstance(stand_in, keras.layers.Layer) and stand_in is not self.backbone:
            raise DLTechniquesError(
                f"keras.models.clone_model cannot clone {self.name}, a {type(self).__name__}: take "
                "copy.deepcopy(model), or type(model).from_config(model.get_config()) for new "
                "weights"
            )
        return super()._run_through_graph(inputs, operation_fn, **kwargs)  # type: ignore[misc]
