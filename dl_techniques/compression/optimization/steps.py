"""The steps of a recipe that train: prune, distil, quantization-aware training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.compression.channel_importance import copy_of
from dl_techniques.compression.distillation import distiller
from dl_techniques.compression.optimization.measure import accuracy
from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.compression.optimization.recipe_parts import (
    Distil,
    Prune,
    QuantizationAware,
    Training,
)
from dl_techniques.compression.pruning_gradual import prune_gradually
from dl_techniques.compression.quantization_aware import calibrate, quantization_aware
from dl_techniques.data.labelled import Batches, Labelled
from dl_techniques.data.preprocessing import Preprocessing
from dl_techniques.errors import CompressionError, TrainingError
from dl_techniques.models.picture_network import StagedNetwork
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.training import Stage
from dl_techniques.training.optimizers import cosine

CALIBRATED = 256
AWARE_RATE = 0.1
"""Quantization-aware training goes on where training ended: at a tenth of the rate."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        name: "prune", "distil" or "quantization_aware".
        parameters: of the network after it.
        accuracy: of Keras on the held-out pictures after it.
        epochs: of training.
        seconds: the step took.
    """

    name: str
    parameters: int
    accuracy: float
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Lesson:
    """Everything that training needs beside the network.

    Attributes:
        train: pictures to learn from.
        held_out: pictures to measure on.
        preprocessing: of the network.
        training: batch size, rate, seed.
        include_preprocessing: whether the network scales pixels 0..255 itself.
        folder: where each training keeps its state, so that the same steps go on after a kill;
            None keeps nothing.
    """

    train: Labelled
    held_out: Labelled
    preprocessing: Preprocessing
    training: Training
    include_preprocessing: bool = False
    folder: Path | None = None

    def batches(self) -> Batches:
        """The training pictures in batches."""
        return Batches(
            self.train.pictures,
            self.train.labels,
            self.training.batch_size,
            self.training.seed,
            self.preprocessing,
            self.training.augment,
            self.include_preprocessing,
        )

    def inputs(self, pictures: Labelled) -> np.ndarray:
        """Pictures as the network takes them: float32[N, H, W, 3]."""
        return pictures.inputs(self.preprocessing, self.include_preprocessing)

    def fit(
        self,
        model: keras.Model,
        epochs: int,
        name: str,
        student: keras.Model | None = None,
        rate: float = 1.0,
    ) -> None:
        """Compiles and trains.

        Args:
            model: a classifier, or a distiller around one.
            epochs: over the training pictures.
            name: of the training, another one for each of a lesson.
            student: the classifier, where `model` is a distiller.
            rate: factor of the learning rate.

        Raises:
            CompressionError: the loss is no number any more, or the folder holds another training.
        """
        keras.utils.set_random_seed(self.training.seed)
        batches = self.batches()
        steps, peak = epochs * len(batches), rate * self.training.learning_rate
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=gives_logits(student or model)
        )
        stage = Stage(
            model,
            batches,
            optimizer(steps, peak),
            steps=steps,
            compiling={"loss": loss},
            settings=asdict(self.training),
        )
        try:
            stage.run(None if self.folder is None else self.folder / name)
        except TrainingError as error:
            raise CompressionError(f"training failed: {error}") from error

    def accuracy_of(self, model: keras.Model) -> float:
        """Of Keras, on the held-out pictures."""
        logits = model.predict(self.inputs(self.held_out), verbose=0)
        return accuracy(logits, self.held_out.labels)


def optimizer(steps: int, learning_rate: float) -> keras.optimizers.Optimizer:
    """AdamW; the rate warms up over a twentieth of the steps and falls along a cosine."""
    schedule = cosine(learning_rate, steps, steps // 20, first=1 / 20)
    return keras.optimizers.AdamW(schedule, weight_decay=0.05, clipnorm=1.0)


def gives_logits(model: keras.Model) -> bool:
    """Whether a classifier's outputs are logits rather than probabilities."""
    return getattr(model, "classifier_activation", None) in (None, "linear")


def run_steps(
    model: keras.Model, recipe: Recipe, lesson: Lesson, say: Callable[[str], None]
) -> tuple[Any, list[StepReport]]:
    """Does the steps of a recipe that train, in their order.

    Args:
        model: a trained classifier; stays as it is.
        recipe: what to do.
        lesson: what to learn from.
        say: called with a line before each step.

    Returns:
        The network after the last step, and what each did.

    Raises:
        CompressionError: a step that this network cannot take.
    """
    network, done = trainable_copy(model), []
    for name, step in (
        ("prune", recipe.prune),
        ("distil", recipe.distil),
        ("quantization_aware", recipe.quantization_aware),
    ):
        if step is None:
            continue
        epochs = step.epochs * getattr(step, "steps", 1)
        say(f"{name}: {epochs} epochs on {len(lesson.train.labels)} pictures")
        start = time.perf_counter()
        keras.utils.set_random_seed(recipe.training.seed)
        network = _STEPS[name](network, model, step, lesson)
        found = lesson.accuracy_of(network)
        seconds = round(time.perf_counter() - start, 1)
        done.append(StepReport(name, int(network.count_params()), found, epochs, seconds))
    return network, done


def trainable_copy(model: keras.Model) -> Any:
    """A copy that can be trained: a folded network goes back to its branches.

    Frozen parts stay frozen; a network that is frozen whole, as one that served as an encoder or a
    teacher, is trainable again.
    """
    copy = copy_of(model)
    if not copy.trainable_variables:
        copy.trainable = True
    if any(switch.is_fold and switch.inference_form for _, switch in copy.switches()):
        copy.reset_reparameterization()
    return copy


def _check_prunable(network: keras.Model) -> None:
    if not isinstance(network, StagedNetwork):
        raise CompressionError(
            f"prune takes a network of stages, as FastVLM; got a {type(network).__name__}: leave "
            "the step out"
        )


def _prune(network: keras.Model, source: Any, step: Prune, lesson: Lesson) -> Any:
    _check_prunable(network)
    return prune_gradually(
        network,
        step.fraction,
        lambda smaller, turn: lesson.fit(smaller, step.epochs, f"prune-{turn}"),
        steps=step.steps,
        targets=step.targets,
        importance=step.importance,
        data=lesson.batches() if step.importance == "taylor" else None,
    )


def _distil(network: keras.Model, source: Any, step: Distil, lesson: Lesson) -> Any:
    teacher = trainable_copy(source) if step.teacher is None else _load(step.teacher)
    teacher.reparameterize()
    student = network if step.student is None else _fresh(step.student, source)
    pair = distiller(
        student, teacher, temperature=step.temperature, alpha=step.alpha, features=step.features
    )
    lesson.fit(pair, step.epochs, "distil", student)
    return student


def _load(source: str) -> Any:
    from dl_techniques.loading.source import load

    return load(source)


def _fresh(variant: str, source: Any) -> FastVLM:
    """An untrained network of a variant for the same pictures and classes."""
    return FastVLM.from_variant(
        variant,
        num_classes=source.num_classes,
        input_shape=source.image_shape,
        preprocessing=source.preprocessing,
        include_preprocessing=source.include_preprocessing,
        layer_scale_init=0.1,
    )


def _quantization_aware(
    network: keras.Model, source: Any, step: QuantizationAware, lesson: Lesson
) -> Any:
    learner = quantization_aware(network, skip=step.skip)
    rows = lesson.batches().order[:CALIBRATED]
    some = Labelled(lesson.train.pictures[rows], lesson.train.labels[rows], lesson.train.classes)
    calibrate(learner, lesson.inputs(some))
    lesson.fit(learner, step.epochs, "quantization_aware", rate=AWARE_RATE)
    return learner


_STEPS: dict[str, Callable[..., Any]] = {
    "prune": _prune,
    "distil": _distil,
    "quantization_aware": _quantization_aware,
}
