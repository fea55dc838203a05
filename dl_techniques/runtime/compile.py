"""How a function of tensors and model weights is compiled.

- JAX: `jax.jit`, the weights passed as arguments (never baked in), the caches donated, so that
  they are updated in place. A function that reads one token has transposed copies of int8 kernels.
- TensorFlow: `tf.function`, one graph per shape, without XLA (slower on CPUs, equal elsewhere).
- PyTorch: as it is, without gradients. A function that runs once per token is recorded after a
  while and replayed as plain ATen calls: the same numbers, without Keras' part of the time. Its
  int8 kernels are laid out in memory as makes a single row faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from dl_techniques.kernels import transposed
from dl_techniques.layers.dense import (
    kernels_to_transpose,
    lay_out_for_one_row,
    without_gradients,
)
from dl_techniques.runtime.recording import Recording, as_tensors

Function = Callable[..., Any]
# Recording saves its time within some twenty tokens or four pictures: a single short answer should
# not pay for it.
CALLS_BEFORE_RECORDING = 8


class TransposedCopies:
    """Transposed copies of int8 kernels, made anew for those whose numbers are others than before.

    Args:
        part: The layer or model whose kernels they are; None for none.
    """

    def __init__(self, part: keras.layers.Layer | None = None) -> None:
        self._kernels = [] if part is None else kernels_to_transpose(part)
        self._sources: list[Any] = [None] * len(self._kernels)
        self._copies: list[Any] = [None] * len(self._kernels)

    def current(self) -> list[Any]:
        """int8[N, K] of every kernel."""
        for i, (kernel, axes) in enumerate(self._kernels):
            if self._sources[i] is not kernel.value:
                self._sources[i] = kernel.value
                self._copies[i] = transposed(kernel.value, axes)
        return self._copies

    def named(self, copies: Sequence[Any]) -> dict[int, Any]:
        """Copies, or what stands for them in a trace, by the `id` of their variables."""
        pairs = zip(self._kernels, copies, strict=True)
        return {id(kernel): copy for (kernel, _), copy in pairs}


def compile_function(
    function: Function,
    variables: Sequence[keras.Variable],
    donate: Sequence[int] = (),
    eager: bool = False,
    often: bool = False,
    copies: TransposedCopies | None = None,
) -> Function:
    """Compiles a function for the backend in use.

    Args:
        function: Takes tensors (or nested tuples of them) and reads no weights but `variables`.
        variables: The weights it reads.
        donate: Positions of arguments whose memory the result may take over; the caller must
            not use them again.
        eager: Compile nothing; only switch gradients off.
        often: Whether the function runs so often that a slow preparation pays.
        copies: Of the kernels, where the function reads a single row.

    Returns:
        A function of the same arguments. NumPy arrays are converted. Python ints become scalar
        tensors where the function is compiled, so that their values never cause a new compilation.
    """
    backend = keras.config.backend()
    if backend == "jax" and not eager:
        return _compile_jax(function, variables, donate, copies or TransposedCopies())
    if backend == "tensorflow" and not eager:
        return _compile_tensorflow(function)
    if backend == "torch":
        return _compile_torch(function, often and not eager)
    return lambda *args: function(*as_tensors(args))


def _compile_jax(
    function: Function,
    variables: Sequence[keras.Variable],
    donate: Sequence[int],
    copies: TransposedCopies,
) -> Function:
    import jax

    def stateless(values: list[Any], copied: list[Any], *args: Any) -> Any:
        mapping = list(zip(variables, values, strict=True))
        with (
            keras.StatelessScope(state_mapping=mapping),
            without_gradients(copies.named(copied)),
        ):
            return function(*args)

    jitted = jax.jit(stateless, donate_argnums=tuple(i + 2 for i in donate))

    def call(*args: Any) -> Any:
        arguments = (np.int32(a) if isinstance(a, int) else a for a in args)
        return jitted([v.value for v in variables], copies.current(), *arguments)

    return call


def _compile_tensorflow(function: Function) -> Function:
    import tensorflow as tf

    def inferring(*args: Any) -> Any:
        with without_gradients():
            return function(*args)

    graph = tf.function(inferring, autograph=False)

    def call(*args: Any) -> Any:
        scalars = (tf.constant(a, tf.int32) if isinstance(a, int) else a for a in args)
        return graph(*as_tensors(tuple(scalars)))

    return call


def _compile_torch(function: Function, often: bool) -> Function:
    import torch

    if often:
        return Recording(function, CALLS_BEFORE_RECORDING)

    def call(*args: Any) -> Any:
        # Not inference_mode: its tensors could never enter a training step later.
        with torch.no_grad():
            return function(*as_tensors(args))

    return call


def calls_until_steady() -> int:
    """How often a function that runs `often` is called until nothing is prepared any more."""
    return CALLS_BEFORE_RECORDING + 2 if keras.config.backend() == "torch" else 1


def no_gradients() -> AbstractContextManager[Any]:
    """Inside, nothing is kept for gradients where a backend would without being asked."""
    if keras.config.backend() != "torch":
        return nullcontext()
    import torch

    context: AbstractContextManager[Any] = torch.no_grad()
    return context


class FunctionCache:
    """Compiled functions of one model, forgotten when its weights are other objects.

    LoRA, quantization and fusing replace or add variables. A graph that was traced before would
    go on computing with the old ones.

    Args:
        eager: Whether functions stay uncompiled.
    """

    def __init__(self, eager: bool = False) -> None:
        self.eager = eager
        self._functions: dict[Any, Function] = {}
        self._variables: list[keras.Variable] = []
        self._copies: dict[int, TransposedCopies] = {}

    def refresh(self, variables: Sequence[keras.Variable]) -> None:
        """Forgets everything if the model no longer has exactly these variables."""
        same = len(variables) == len(self._variables) and all(
            a is b for a, b in zip(variables, self._variables, strict=True)
        )
        if not same:
            self._functions.clear()
            self._copies.clear()
            self._variables = list(variables)

    def get(
        self,
        key: Any,
        function: Function,
        part: keras.layers.Layer | None = None,
        donate: Sequence[int] = (),
        often: bool = False,
        alone: bool = False,
    ) -> Function:
        """Returns the compiled `function`, compiling it the first time `key` is asked for.

        Args:
            key: Names the function; it must differ for functions that close over different values.
            function: What to compile.
            part: The layer or model whose weights `function` reads; None for none.
            donate: As in `compile_function`.
            often: As in `compile_function`.
            alone: Whether the function reads a single row.
        """
        if key not in self._functions:
            if part is not None:  # before anything is recorded with the memory as it was
                lay_out_for_one_row(part)
            variables = [] if part is None else part.variables
            copies = self._copies.setdefault(id(part), TransposedCopies(part)) if alone else None
            self._functions[key] = compile_function(
                function, variables, donate, self.eager, often, copies
            )
        return self._functions[key]
