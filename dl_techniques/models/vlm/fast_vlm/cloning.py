"""`keras.models.clone_model` of a whole model or its backbone, which it cannot clone.

It copies the layers of a functional model one by one. Of a whole model the embedding table that
also gives the logits would become two, `generate` would be gone, and `compile` would not know the
sampler. Of a backbone the copy would hold its weights in another order on some backends, so that
`set_weights` would exchange those of equal shape.
"""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.errors import DLTechniquesError
from dl_techniques.typing import Tensor


class RefusesCloning:
    """Says how a model is copied instead. Stands before `keras.Model`."""

    name: str
    cloned_part = "backbone"
    """The attribute whose copy shows that the walk makes copies."""

    def _run_through_graph(self, inputs: Tensor, operation_fn: Any = None, **kwargs: Any) -> Any:
        """Keras' walk along the graph (3.15), which `clone_model` does with copies of the layers.

        Raises:
            DLTechniquesError: so.
        """
        if operation_fn is None:
            return super()._run_through_graph(inputs, **kwargs)  # type: ignore[misc]
        part = getattr(self, self.cloned_part)
        stand_in = operation_fn(part)
        if isinstance(stand_in, keras.layers.Layer) and stand_in is not part:
            raise DLTechniquesError(
                f"keras.models.clone_model cannot clone {self.name}, a {type(self).__name__}: take "
                "copy.deepcopy(model), or type(model).from_config(model.get_config()) for new "
                "weights"
            )
        return super()._run_through_graph(inputs, operation_fn, **kwargs)  # type: ignore[misc]
