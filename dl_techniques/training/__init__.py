"""Training in stages that go on exactly where a killed run was."""

from dl_techniques.training.batches import Batches, Repeated
from dl_techniques.training.callbacks import StatefulCallback, WeightAverage
from dl_techniques.training.optimizers import Optimizer, cosine
from dl_techniques.training.recipe import Recipe, StageSettings
from dl_techniques.training.stage import Outcome, Stage, has_begun, is_finished

__all__ = [
    "Batches",
    "Optimizer",
    "Outcome",
    "Recipe",
    "Repeated",
    "Stage",
    "StageSettings",
    "StatefulCallback",
    "WeightAverage",
    "cosine",
    "has_begun",
    "is_finished",
]
