"""Optimizers with the rate's way, weight decay, clipping and averages, from plain settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from dl_techniques.errors import TrainingError
from dl_techniques.training.callbacks import WeightAverage

KINDS = ("adamw", "muon")
NOT_DECAYED = ["bias", "beta", "gamma", "scale"]


def cosine(
    peak: float, steps: int, warmup: int, first: float = 0.0, last: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rate that rises in a line and falls along a cosine.

    Args:
        peak: the highest.
        steps: of the stage, warm-up included. Batches, where an update gathers several: a
            schedule counts these.
        warmup: steps until the peak.
        first: share of the peak at the start.
        last: share of the peak at the end.

    Example:
        >>> rate = cosine(0.1, 100, 10)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.05, 0.1, 0.05, 0.0]
    """
    warmup = max(1, warmup)
    return keras.optimizers.schedules.CosineDecay(
        first * peak, max(1, steps - warmup), last, warmup_target=peak, warmup_steps=warmup
    )


@dataclass(frozen=True)
class Optimizer:
    """How weights move.

    Attributes:
        kind: "adamw", or "muon": matrices move by orthogonalized momentum (Liu et al., "Muon is
            scalable for LLM training", arXiv:2502.16982), everything else as with AdamW.
        learning_rate: the highest.
        warmup: share of the steps in which it rises.
        warmup_steps: most of these.
        last: share of the highest rate that it falls to.
        weight_decay: of matrices and kernels; biases, gains and scales are left alone.
        clip_norm: most length of all gradients together; None does not clip.
        beta_2: of AdamW.
        average: share of a moving average of the weights that stays at each update; the trained
            model gets the average. None keeps none.
        accumulate: batches whose gradients make an update.

    Raises:
        TrainingError: settings that cannot be.
    """

    kind: str = "adamw"
    learning_rate: float = 1e-3
    warmup: float = 0.05
    warmup_steps: int | None = None
    last: float = 0.0
    weight_decay: float = 0.02
    clip_norm: float | None = 1.0
    beta_2: float = 0.999
    average: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Checks the settings."""
        average = 0.0 if self.average is None else self.average
        for name, wrong, expected in (
            ("kind", self.kind not in KINDS, f"one of {', '.join(KINDS)}"),
            ("learning_rate", not self.learning_rate > 0, "above 0"),
            ("warmup", not 0 <= self.warmup < 1, "from 0 to below 1"),
            ("last", not 0 <= self.last <= 1, "from 0 to 1"),
            ("average", not 0 <= average < 1, "from 0 to below 1"),
            ("accumulate", self.accumulate < 1, "at least 1"),
        ):
            if wrong:
                raise TrainingError(
                    f"optimizer.{name} is {getattr(self, name)!r}; it must be {expected}"
                )

    def build(self, steps: int | None, heads: Sequence[str] = ()) -> keras.optimizers.Optimizer:
        """The optimizer of a stage.

        Args:
            steps: batches of the stage; None for a constant rate, which the clock changes.
            heads: parts of the paths of output layers, which Muon leaves to AdamW.
        """
        rate = self.learning_rate if steps is None else self.schedule(steps)
        in_graph = self.average is not None and self.accumulate == 1
        shared = {
            "global_clipnorm": self.clip_norm,
            "weight_decay": self.weight_decay,
            "use_ema": in_graph,
            "ema_momentum": self.average if in_graph else 0.99,
            "gradient_accumulation_steps": self.accumulate if self.accumulate > 1 else None,
        }
        if self.kind == "muon":
            own = {"adam_beta_2": self.beta_2, "adam_weight_decay": self.weight_decay}
            made = keras.optimizers.Muon(rate, exclude_layers=list(heads), **own, **shared)
        else:
            made = keras.optimizers.AdamW(rate, beta_2=self.beta_2, **shared)
        made.exclude_from_weight_decay(var_names=NOT_DECAYED)
        return made

    def schedule(self, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """The rate's way through a stage."""
        warmup = int(self.warmup * steps)
        if self.warmup_steps is not None:
            warmup = min(warmup, self.warmup_steps)
        return cosine(self.learning_rate, steps, warmup, last=self.last)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """What has to run beside it: Keras' own averages would move with every batch."""
        if self.average is None or self.accumulate == 1:
            return []
        return [WeightAverage(self.average)]
