"""Training in stages that go on exactly where a killed run was."""

from dl_techniques.training.batches import Batches, Repeated
from dl_techniques.training.callbacks import StatefulCallback, WeightAverage
from dl_techniques.training.stage import Outcome, Stage, has_begun, is_finished

__all__ = [
    "Batches",
    "Outcome",
    "Repeated",
    "Stage",
    "StatefulCallback",
    "WeightAverage",
    "has_begun",
    "is_finished",
]
