"""PyTorch sees the parameters of a KerasHub model.

KerasHub's `__setattr__` keeps the parameter list that Keras makes for PyTorch out of PyTorch's
sight until the first `fit` (0.32). Before, `model.parameters()` of its models is empty, so that a
training loop in plain PyTorch has nothing to optimize and `zero_grad()` does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class TorchParametersMixin:
    """Gives `parameters()`, `zero_grad()` and whatever asks for them the variables there are."""

    variables: list[Any]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Path and `torch.nn.Parameter` of every variable, as `torch.nn.Module` names them.

        Args:
            prefix: stands before the paths, with a point between.
            recurse: has no effect: all variables are the model's.
            remove_duplicate: has no effect: every variable comes once.
        """
        for variable in self.variables:
            yield f"{prefix}.{variable.path}" if prefix else variable.path, variable.value
