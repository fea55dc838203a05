"""Builds a model whose weights are about to be read, and gives the device as little to do for it.

Keras gives every new variable numbers of an initializer, and a preset then replaces all of them;
weights that lie in float16 on disk are widened on the device. On JAX each of these is a program
for each shape, to be compiled in a first start and to be found again in the next ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

RANDOM = ("RandomNormal", "TruncatedNormal", "RandomUniform", "VarianceScaling")
CONSTANT = ("Zeros", "Ones", "Constant")


def zeros(initializer: Any, shape: Sequence[int], dtype: Any = None, **options: Any) -> Any:
    """Stands in for the call of a random initializer."""
    return _filled(shape, 0.0, dtype)


def constants(initializer: Any, shape: Sequence[int], dtype: Any = None, **options: Any) -> Any:
    """Stands in for the call of a constant initializer: the same numbers, made by NumPy."""
    import keras

    ones = isinstance(initializer, keras.initializers.Ones)
    return _filled(shape, getattr(initializer, "value", float(ones)), dtype)


def _filled(shape: Sequence[int], value: Any, dtype: Any) -> Any:
    """A tensor. JAX moves an array whose type it is told; another one goes through a program."""
    import keras
    import numpy as np

    dtype = keras.backend.standardize_dtype(dtype)
    array = np.full(shape, value, dtype if dtype in np.sctypeDict else "float32")
    return keras.ops.convert_to_tensor(array, dtype=dtype)


@contextmanager
def loaded_on_the_host() -> Iterator[None]:
    """While it lasts, a model is built and its weights are read without programs of the device.

    Random initializers give zeros, constant ones their numbers, and NumPy casts what float32
    variables are given. Only for models that are loaded whole: a weight that no file fills stays
    zero. Not for use in threads that build other models meanwhile.
    """
    import h5py
    import keras
    import numpy as np

    from dl_techniques.layers.initializers import HostTruncatedNormal

    assign = keras.Variable.assign

    def cast_and_assign(variable: keras.Variable, value: Any) -> Any:
        if isinstance(value, (np.ndarray, h5py.Dataset)) and variable.dtype == "float32":
            value = np.asarray(value, "float32")
        return assign(variable, value)

    kinds = {name: getattr(keras.initializers, name) for name in (*RANDOM, *CONSTANT)}
    with ExitStack() as stack:
        stack.enter_context(_replaced(keras.Variable, "assign", cast_and_assign))
        stack.enter_context(_replaced(HostTruncatedNormal, "__call__", zeros))
        for name, kind in kinds.items():
            stand_in = zeros if name in RANDOM else constants
            stack.enter_context(_replaced(kind, "__call__", stand_in))
        yield


@contextmanager
def _replaced(kind: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Gives a class another method; what it had itself, or inherited, comes back."""
    own = vars(kind).get(name)
    setattr(kind, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(kind, name)
        else:
            setattr(kind, name, own)
