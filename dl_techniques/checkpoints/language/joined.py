"""Several variables that a file keeps as one array, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from dl_techniques.checkpoints.weight_map import Entry, keras_array
from dl_techniques.runtime.lazy_build import place
from dl_techniques.typing import Sides


class Joined:
    """Looks like one variable to a weight map, in the layout of the file.

    Args:
        parts: entries of the variables, in the order of the file; their arrays are joined along
            the first axis.

    Example:
        >>> import keras, numpy as np
        >>> from dl_techniques.checkpoints.weight_map import DENSE
        >>> q, k = keras.Variable(np.zeros((3, 4))), keras.Variable(np.zeros((3, 2)))
        >>> joined = Joined([Entry("q", q, DENSE), Entry("k", k, DENSE)])
        >>> joined.assign(np.ones((6, 3), "float32"))
        >>> tuple(joined.shape), tuple(q.shape), float(k.numpy().sum())
        ((6, 3), (3, 4), 6.0)
    """

    def __init__(self, parts: Sequence[Entry]) -> None:
        self.parts = list(parts)

    @property
    def path(self) -> str:
        """The paths of all parts."""
        return "+".join(part.path for part in self.parts)

    @property
    def shape(self) -> Sides:
        """Shape of the one array."""
        shapes = [part.source_shape for part in self.parts]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    @property
    def dtype(self) -> str:
        """Type of the parts."""
        return str(self.parts[0].variable.dtype)

    @property
    def value(self) -> np.ndarray:
        """The parts, joined."""
        return np.concatenate(
            [
                p.transform.to_source(keras.ops.convert_to_numpy(p.variable.value))
                for p in self.parts
            ]
        )

    def assign(self, array: np.ndarray) -> None:
        """Gives every part its rows."""
        start = 0
        for part in self.parts:
            stop = start + part.source_shape[0]
            place(part.variable, keras_array(part, array[start:stop]))
            start = stop
