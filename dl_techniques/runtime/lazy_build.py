"""Networks without weights: built for their shapes, filled one array at a time.

Keras gives every new variable random numbers. For a network that is about to be loaded that is
time, and memory for a second copy of the largest arrays. Inside `without_values` variables have a
path, a shape and a type but no memory; `place` gives each its first value, which is the loaded
array itself where the backend allows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import ml_dtypes
import numpy as np

from dl_techniques.compat.keras_variables import (
    has_value,
    initialize,
    initialize_with,
    made_without_values,
)


@dataclass
class Unfilled:
    """The variables that were made without a value."""

    variables: list[keras.Variable] = field(default_factory=list)

    def fill_rest(self, of: Any, but: Collection[int] = ()) -> None:
        """Gives what a network has beyond a weight map its own initial values (seeds of dropout).

        Args:
            of: the network; variables that are none of it are forgotten.
            but: `id`s of variables that will be placed.
        """
        wanted = {id(v) for v in of.variables} - set(but)
        for variable in self.variables:
            if id(variable) in wanted and is_unfilled(variable):
                initialize(variable)
        self.variables.clear()


@contextmanager
def without_values() -> Iterator[Unfilled]:
    """While it lasts, new variables have no value.

    Yields:
        What has to be filled before the network can be used. Outside of it, a network that was
        built inside can only be asked for shapes.

    Example:
        >>> import keras
        >>> with without_values() as unfilled:
        ...     layer = keras.layers.Dense(4)
        ...     layer.build((None, 3))
        >>> tuple(layer.kernel.shape), is_unfilled(layer.kernel)
        ((3, 4), True)
        >>> unfilled.fill_rest(of=layer)
        >>> is_unfilled(layer.kernel)
        False
    """
    unfilled = Unfilled()
    with made_without_values(unfilled.variables.extend):
        yield unfilled


def is_unfilled(variable: keras.Variable) -> bool:
    """Whether a variable still has no value."""
    return isinstance(variable, keras.Variable) and not has_value(variable)


def place(variable: keras.Variable, array: np.ndarray) -> None:
    """Gives a variable its value, in its own type, without a detour over another one.

    Args:
        variable: with or without a value; or anything with `assign`.
        array: of the variable's shape; it may become the variable's memory, so the caller must
            not change it afterwards.
    """
    if not isinstance(variable, keras.Variable):
        variable.assign(array)
    elif is_unfilled(variable):
        initialize_with(variable, _tensor(array, variable.dtype))
    else:
        variable.assign(_tensor(array, variable.dtype))


def _tensor(array: np.ndarray, dtype: str) -> Any:
    """A tensor of that type; torch, which knows no bfloat16 of NumPy's, is given the bits."""
    if keras.backend.backend() != "torch":
        wanted = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        return keras.ops.convert_to_tensor(array.astype(wanted, copy=False), dtype)
    import torch

    if array.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor.to(getattr(torch, dtype))
