"""AdamW with a rate and a decay for each variable: one step, one clip, one accumulation for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dl_techniques.compat.keras_models import number_of
from dl_techniques.errors import TrainingError


class GroupedAdamW(keras.optimizers.Adam):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) whose variables have rates of their own.

    The norm of all gradients together is clipped, whatever their rates are, once for each update.

    Args:
        learning_rate: number or schedule, times each variable's share.
        shares: of the rate, one for each trainable variable in the model's order.
        decays: weight decay of each, in the same order.
        **kwargs: of `keras.optimizers.Adam`.

    Raises:
        TrainingError: other numbers of shares than of decays, or than of variables.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> optimizer = GroupedAdamW(0.1, shares=[1.0, 0.0], decays=[0.01, 0.0])
        >>> model.compile(optimizer, "mse")
        >>> _ = model.fit(ops.ones((4, 2)), ops.ones((4, 1)), verbose=0)
        >>> float(model.layers[0].bias[0])
        0.0
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        shares: Sequence[float],
        decays: Sequence[float],
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.shares, self.decays = [float(s) for s in shares], [float(d) for d in decays]
        if len(self.shares) != len(self.decays):
            raise TrainingError(
                f"{len(self.shares)} shares, {len(self.decays)} decays: give one a variable"
            )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments."""
        if len(variables) != len(self.shares):
            raise TrainingError(
                f"shares for {len(self.shares)} variables, but {len(variables)} are trained: make "
                "the optimizer after freezing"
            )
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay, then Adam's step, at the variable's rate."""
        place = number_of(self, variable)
        rate = learning_rate * self.shares[place]
        if self.decays[place]:
            share = ops.cast(rate * self.decays[place], variable.dtype)
            self.assign_sub(variable, ops.multiply(variable, share))
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "shares": self.shares, "decays": self.decays}
