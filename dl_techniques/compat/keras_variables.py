"""What Keras' variables keep to themselves: that they may wait for their first value.

Needed for loading networks without making random numbers for them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
from keras.src.backend.common import global_state

from dl_techniques.typing import Tensor

_WAITING = "uninitialized_variables"  # Keras' name for the list of variables without a value


@contextmanager
def made_without_values(found: Callable[[list[keras.Variable]], None]) -> Iterator[None]:
    """While it lasts, new variables have a path, a shape and a type, but no memory.

    Args:
        found: is given them at the end.
    """
    before = list(global_state.get_global_attribute(_WAITING) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        waiting = global_state.get_global_attribute(_WAITING) or []
        # Left in the list, the end of any later scope would fill them with random numbers.
        found([v for v in waiting if all(v is not old for old in before)])
        global_state.set_global_attribute(_WAITING, before)


def has_value(variable: keras.Variable) -> bool:
    """Whether a variable has its first value."""
    return variable._value is not None


def initialize(variable: keras.Variable) -> None:
    """Gives a variable what its initializer says."""
    variable._deferred_initialize()


def initialize_with(variable: keras.Variable, tensor: Tensor) -> None:
    """Gives a variable its first value, which may become its memory."""
    variable._initialize(tensor)
    variable._initializer = None
