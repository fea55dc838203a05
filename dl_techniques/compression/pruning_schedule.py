"""How sparsity grows while a network is trained."""

from __future__ import annotations

import dataclasses

from dl_techniques.errors import CompressionError


@dataclasses.dataclass(frozen=True)
class CubicSchedule:
    """Sparsity that rises quickly while much is superfluous, and slowly towards its end.

    s(t) = final + (initial - final) * (1 - (t - begin) / (end - begin))^3 between `begin_step` and
    `end_step`; `initial` before, `final` after.

    Args:
        final: sparsity at the end, in (0, 1).
        begin_step: first step of the rise. Defaults to 0.
        end_step: step at which `final` is reached. Defaults to 1000.
        initial: sparsity at `begin_step`. Defaults to 0.

    Raises:
        CompressionError: numbers out of their ranges or order.

    Example:
        >>> [round(CubicSchedule(0.8, end_step=4)(step), 4) for step in range(6)]
        [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]

    Reference: Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878, equation 1.
    """

    final: float
    begin_step: int = 0
    end_step: int = 1000
    initial: float = 0.0

    def __post_init__(self) -> None:
        """Checks ranges and order."""
        if not 0 < self.final < 1 or not 0 <= self.initial <= self.final:
            raise CompressionError(
                f"sparsity goes from {self.initial} to {self.final}; expected "
                "0 <= initial <= final and 0 < final < 1"
            )
        if not 0 <= self.begin_step < self.end_step:
            raise CompressionError(
                f"the schedule runs from step {self.begin_step} to {self.end_step}; expected "
                "0 <= begin_step < end_step"
            )

    def __call__(self, step: int) -> float:
        """Sparsity at a step, in [0, 1)."""
        done = (step - self.begin_step) / (self.end_step - self.begin_step)
        left = 1.0 - min(max(done, 0.0), 1.0)
        return self.final + (self.initial - self.final) * left**3
