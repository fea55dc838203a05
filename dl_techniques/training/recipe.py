"""Stages of training in YAML, and how they are run one after the other.

    seed: 0
    stages:
      encoder:
        epochs: 20
        batch_size: 64
        optimizer: {learning_rate: 0.001, average: 0.995}
        options: {variant: demo}
      language:
        minutes: 30
        segment: 100
        optimizer: {learning_rate: 0.0015, beta_2: 0.98}

What a stage trains, and on what, is said by a program: a function for each name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import keras

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import TrainingError
from dl_techniques.training.batches import Batches
from dl_techniques.training.optimizers import Optimizer
from dl_techniques.training.settings import check_keys, part_from, read_yaml
from dl_techniques.training.stage import Outcome, Stage

DONE = "done.json"
KEYS = ("seed", "stages")
Options = TypeVar("Options")


@dataclass(frozen=True)
class StageSettings:
    """One stage of a recipe.

    Attributes:
        name: of the stage and its folder.
        seed: of its draws.
        uses: name of the function that makes it; by default the stage's own.
        epochs: of the data. One of these three.
        steps: batches.
        minutes: of training.
        segment: steps between two states; None for an epoch.
        save_seconds: least time between two states.
        batch_size: rows of a batch.
        threads: that make batches ahead.
        processes: that make them instead.
        passes: how often each batch is given, see `Repeated`.
        optimizer: how weights move.
        options: for the function alone, which reads them with `read_options`.
    """

    name: str
    seed: int = 0
    uses: str = ""
    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    segment: int | None = None
    save_seconds: float = 0.0
    batch_size: int = 32
    threads: int = 1
    processes: int = 0
    passes: int = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks that the stage ends, and that numbers can be."""
        lengths = (self.epochs, self.steps, self.minutes)
        if sum(length is not None for length in lengths) != 1:
            raise TrainingError(f"stage {self.name}: give one of epochs, steps, minutes")
        for name in ("epochs", "steps", "minutes", "segment", "batch_size", "threads", "passes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"stage {self.name}: {name} is {value}; expected more than 0")

    def read_options(self, cls: type[Options]) -> Options:
        """The options as a dataclass.

        Raises:
            TrainingError: an unknown key (the nearest right one is named) or a wrong value.
        """
        return part_from(cls, self.options, f"stage {self.name}: options")

    def total_steps(self, data: Batches) -> int | None:
        """Batches of the stage; None if the clock ends it."""
        return self.epochs * len(data) if self.epochs is not None else self.steps

    def train(
        self,
        folder: Path,
        model: keras.Model,
        data: Batches,
        heads: tuple[str, ...] = (),
        **options: Any,
    ) -> Outcome:
        """Trains a model as the settings say, or goes on.

        Args:
            folder: of the training.
            model: built; its `trainable` flags say what learns.
            data: batches by place.
            heads: of `Optimizer.build`.
            **options: further ones of `Stage`, such as `compiling`.
        """
        steps = self.total_steps(data)
        stage = Stage(
            model,
            data,
            self.optimizer.build(steps, heads),
            steps=steps,
            minutes=self.minutes,
            callbacks=[*self.optimizer.callbacks(), *options.pop("callbacks", ())],
            segment=self.segment,
            save_seconds=self.save_seconds,
            threads=self.threads,
            processes=self.processes,
            passes=self.passes,
            settings=self.told(),
            **options,
        )
        return stage.run(folder)

    def told(self) -> dict[str, Any]:
        """What has to be the same when a run goes on: not by whom batches are made."""
        left_out = ("threads", "processes", "save_seconds")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}


Maker = Callable[[StageSettings, Path], None]
"""Trains one stage in the folder of the recipe: reads what earlier stages left in theirs, and
leaves what it made in its own, `folder / settings.name`."""


@dataclass(frozen=True)
class Recipe:
    """Stages in their order.

    Args:
        stages: name -> settings.

    Example:
        >>> recipe = Recipe.from_dict({"stages": {"whole": {"steps": 10}}})
        >>> recipe.stages["whole"].optimizer.kind
        'adamw'
    """

    stages: Mapping[str, StageSettings]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """A recipe from plain values; stages without a seed get one of their own.

        Raises:
            TrainingError: an unknown key (the nearest right one is named) or a wrong value.
        """
        check_keys(values, KEYS, source)
        seed, stages = values.get("seed", 0), values.get("stages")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TrainingError(f"{source}: seed must be int, got {seed!r}")
        if not isinstance(stages, Mapping) or not stages:
            raise TrainingError(f"{source}: stages must be a mapping of name to settings")
        made = {
            str(name): _stage(str(name), fields, seed + place, f"{source}: {name}")
            for place, (name, fields) in enumerate(stages.items())
        }
        return cls(made)

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """A recipe from a YAML file.

        Raises:
            TrainingError: no such file, no YAML, an unknown key or a wrong value.
        """
        path = Path(path)
        return cls.from_dict(read_yaml(path, KEYS), path.name)

    def run(
        self, folder: str | Path, makers: Mapping[str, Maker], say: Callable[[str], None] = print
    ) -> None:
        """Runs the stages; the same call goes on after a kill, and does nothing twice.

        Args:
            folder: a folder for each stage is made in it.
            makers: what `uses` names.
            say: called with a line after each stage.

        Raises:
            TrainingError: a stage that nothing makes, or a folder of another recipe.
        """
        place = Path(folder)
        for name, settings in self.stages.items():
            if settings.uses not in makers:
                near = difflib.get_close_matches(settings.uses, makers, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(makers)}"
                raise TrainingError(f"stage {name}: nothing makes {settings.uses!r}; {hint}")
        for name, settings in self.stages.items():
            if not _is_done(place / name, settings):
                start = perf_counter()
                (place / name).mkdir(parents=True, exist_ok=True)
                keras.utils.set_random_seed(settings.seed)
                makers[settings.uses](settings, place)
                with atomic_writer(place / name / DONE) as file:
                    json.dump(settings.told(), file, indent=2)
                say(f"stage {name}: {(perf_counter() - start) / 60:.1f} minutes")


def _is_done(folder: Path, settings: StageSettings) -> bool:
    path = folder / DONE
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(settings.told()))
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise TrainingError(
                f"{folder} was made with {name}={found.get(name)!r}, the recipe says "
                f"{wanted[name]!r}: take another folder, or remove this stage's and later ones'"
            )
    return True


def _stage(name: str, fields: Any, seed: int, place: str) -> StageSettings:
    """One stage from its mapping."""
    if not isinstance(fields, Mapping):
        raise TrainingError(f"{place} must be a mapping, got {fields!r}")
    known = [f.name for f in dataclasses.fields(StageSettings) if f.name != "name"]
    check_keys(fields, known, place)
    plain = {"seed": seed, "uses": name, **fields}
    optimizer = part_from(Optimizer, plain.pop("optimizer", {}), f"{place}.optimizer")
    options = plain.pop("options", {})
    if not isinstance(options, Mapping):
        raise TrainingError(f"{place}.options must be a mapping, got {options!r}")
    return part_from(
        StageSettings, plain, place, name=name, optimizer=optimizer, options=dict(options)
    )
