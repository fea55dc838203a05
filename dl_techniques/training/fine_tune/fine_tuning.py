"""One call from settings to a trained model on disk; the same call goes on after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import keras
import numpy as np

from dl_techniques.compat.keras_layers import all_parts
from dl_techniques.data.records.training_files import TrainingRecords, read_training_files
from dl_techniques.errors import TrainingError
from dl_techniques.layers.freezing import own_variables
from dl_techniques.loading.source import load
from dl_techniques.training.callbacks import WeightAverage
from dl_techniques.training.fine_tune.conversation_batches import make_batches
from dl_techniques.training.fine_tune.fine_tune_settings import FineTune
from dl_techniques.training.fine_tune.peft_files import save_adapter
from dl_techniques.training.fine_tune.trained_parts import (
    choose_parts,
    finished_model,
    part_layers,
    rates_of,
)
from dl_techniques.training.fine_tune.watching import BEST, Question, Watch, questions_of
from dl_techniques.training.grouped_adam import GroupedAdamW
from dl_techniques.training.optimizers import cosine
from dl_techniques.training.stage import Outcome, Stage, has_begun
from dl_techniques.training.state import read_position, read_state

MOST_STEPS = 100
"""Between two states, unless the settings say another number."""
ADAPTER = "adapter"
TRIED = 4
"""Steps that a look ahead takes."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """What came of a training.

    Attributes:
        output: folder of the model.
        outcome: of the stage.
        best_step: whose weights the model has; None for those after the last step.
        exact_match: of the validation at that step; None without one.
    """

    output: Path
    outcome: Outcome
    best_step: int | None = None
    exact_match: float | None = None


class Tuning:
    """Settings, data and model of one training, ready for its first step.

    Args:
        settings: of the training.
        say: called with notes.

    Raises:
        PromptError: bad data; all faults are told.
        PresetError: no such preset.
        TrainingError: settings that do not go together.
    """

    def __init__(self, settings: FineTune, say: Say = print) -> None:
        self.settings, self.say = settings, say
        self.records = self._read("data", settings.skip_bad)
        self.validation = self._read("val_data", settings.skip_bad)
        keras.utils.set_random_seed(settings.seed)
        self.model = load_trainable(settings)
        self.batches, self.counts = make_batches(
            self.records,
            self.model.preprocessor,
            settings.batch_size,
            settings.accumulate,
            settings.seed,
            settings.max_length,
        )
        epochs = settings.all_epochs
        self.steps = settings.steps if epochs is None else epochs * len(self.batches)
        if self.steps is not None and self.steps % settings.accumulate:
            raise TrainingError(
                f"steps is {self.steps}, no multiple of accumulate={settings.accumulate}: the last "
                "batches would change nothing"
            )

    def _read(self, name: str, skip_bad: int) -> TrainingRecords:
        sources = getattr(self.settings, name)
        if not sources:
            return TrainingRecords()
        made = read_training_files(sources, skip_bad)
        for fault in made.left_out:
            self.say(f"left out: {fault}")
        return made

    def stage(self, steps: int | None, minutes: float | None, callbacks: Any) -> Stage:
        """The training as a `Stage`."""
        settings = self.settings
        rates = dict(tower=settings.tower_rate, projector=settings.projector_rate)
        shares, decays = rates_of(self.model, rates, settings.weight_decay)
        rate: Any = settings.rate
        if steps is not None:
            rate = cosine(rate, steps, int(settings.warmup * steps))
        in_graph = settings.average is not None and settings.accumulate == 1
        optimizer = GroupedAdamW(
            rate,
            shares=shares,
            decays=decays,
            global_clipnorm=settings.clip_norm,
            gradient_accumulation_steps=settings.accumulate if settings.accumulate > 1 else None,
            use_ema=in_graph,
            ema_momentum=settings.average if in_graph and settings.average else 0.99,
        )
        if settings.average is not None and not in_graph:
            callbacks = [WeightAverage(settings.average), *callbacks]
        fixed = [
            variable
            for layer in all_parts(self.model.backbone)
            for variable, _ in own_variables(layer)
            if not variable.trainable
        ]
        return Stage(
            self.model,
            self.batches,
            optimizer,
            steps=steps,
            minutes=minutes,
            callbacks=callbacks,
            segment=settings.every or min(len(self.batches), MOST_STEPS),
            unchanged=fixed,
            settings=self.told(),
        )

    def told(self) -> dict[str, Any]:
        """What has to be the same when a run goes on: settings, records and preset."""
        told = dataclasses.asdict(self.settings)
        for name in ("data", "val_data", "output", "skip_bad"):
            del told[name]
        text = json.dumps([self.records.records, self.records.weights], sort_keys=True)
        return {**told, "records": hashlib.sha256(text.encode()).hexdigest()[:16]}

    def looked_at(self) -> list[Question]:
        """The fixed questions, about the first pictures there are."""
        records = self.validation.records or self.records.records
        asked = self.settings.questions
        pictures = [tuple(record["images"]) for record in records[: max(1, len(asked))]]
        return [Question(q, pictures[i % len(pictures)]) for i, q in enumerate(asked)]

    def trained_numbers(self) -> dict[str, tuple[int, int]]:
        """Part -> how many numbers it has, and how many of them learn."""
        found = {}
        for name, layers in part_layers(self.model).items():
            whole = sum(_size(v) for layer in layers for v in layer.variables)
            found[name] = (whole, sum(_size(v) for x in layers for v in x.trainable_variables))
        return found


def load_trainable(settings: FineTune) -> Any:
    """The preset as it is trained: its type, its quantized weights, what learns of it."""
    more = {} if settings.dtype == "float32" else {"dtype": settings.dtype}
    model = load_preset(settings.preset, **more)
    if settings.quantize is not None:
        decoder = {id(layer) for layer in all_parts(model.backbone.text_backbone)}
        plain = (keras.layers.Dense, keras.layers.EinsumDense)
        model.quantize(
            settings.quantize,
            filters=lambda layer: id(layer) in decoder and isinstance(layer, plain),
        )
    choose_parts(model, settings.train, settings.lora_rank, settings.lora_alpha)
    return model


def load_preset(preset: str, **options: Any) -> Any:
    """A vision-language model by the name of its preset, or from its file."""
    from dl_techniques import FastVLMCausalLM

    if preset.endswith(".keras"):
        if options:
            raise TrainingError(f"{preset} keeps its own type: train it with dtype float32")
        return load(preset)
    return FastVLMCausalLM.from_preset(preset, **options)


def training_folder(settings: FineTune) -> Path:
    """Where states, metrics and answers of a training stand: `OUTPUT.training`."""
    output = Path(settings.output)
    return output.with_name(output.name + ".training")


def fine_tune(settings: FineTune, say: Say = print, force: bool = False) -> Tuned:
    """Trains a vision-language model on conversations, or goes on where a killed run was.

    Args:
        settings: of the training.
        say: called with lines for a reader.
        force: replace an output that another training made.

    Raises:
        PromptError: bad data; all faults are told.
        PresetError: no such preset.
        TrainingError: settings that do not go together, or a folder of another training.

    Example:
        >>> fine_tune(FineTune((TrainingSource("my.jsonl"),), "my_model"))  # doctest: +SKIP
    """
    folder, output = training_folder(settings), Path(settings.output)
    if output.exists() and not has_begun(folder) and not force:
        raise TrainingError(f"{output} exists already: name another output, or use --force")
    tuning = Tuning(settings, say)
    watch = Watch(
        tuning.batches,
        tuning.steps,
        settings.minutes,
        folder,
        questions_of(tuning.validation.records, settings.val_limit),
        tuning.looked_at(),
        settings.max_new_tokens,
        settings.patience,
        say,
    )
    for line in summary(tuning):
        say(line)
    outcome = tuning.stage(tuning.steps, settings.minutes, [watch]).run(folder)
    best_step = rate = None
    if (folder / BEST).is_dir() and settings.average is None:
        best = read_position(folder / BEST)
        best_step, rate = best.step, best.settings["exact_match"]
        read_state(folder / BEST, tuning.model.trainable_variables)
    if settings.lora_rank is not None:
        save_adapter(tuning.model.backbone.text_backbone, folder / ADAPTER, settings.preset)
    finished_model(tuning.model, load_preset(settings.preset)).save_to_preset(output)
    return Tuned(output, outcome, best_step, rate)


def summary(tuning: Tuning) -> list[str]:
    """What will be trained, in lines."""
    settings = tuning.settings
    lines = [f"{part}: {learns:,} of {whole:,} numbers learn"
             for part, (whole, learns) in tuning.trained_numbers().items()]  # fmt: skip
    count, rows = len(tuning.records.records), len(tuning.batches) * settings.batch_size
    mean = float(np.mean(tuning.counts))
    lines.append(
        f"{count} records, an epoch: {rows} rows in {len(tuning.batches)} batches of "
        f"{settings.batch_size}, about {mean * rows:,.0f} tokens"
    )
    lines.append(
        "no batch statistics are trained: batches gathered over several steps learn as one large "
        "batch would"
    )
    return lines


def look_ahead(settings: FineTune, say: Say = print) -> list[str]:
    """What a training would be, from its data and a few steps; nothing is written.

    Args:
        settings: of the training.
        say: called with notes on the data.

    Raises:
        DLTechniquesError: as `fine_tune`.
    """
    tuning = Tuning(settings, say)
    lines = summary(tuning)
    pace = _Pace()
    tried = TRIED * settings.accumulate
    tuning.stage(tried, None, [pace]).run()
    learn = sum(learns for _, learns in tuning.trained_numbers().values())
    weights = sum(_size(v) * _bytes(v) for v in tuning.model.variables)
    moments = 2 + (settings.accumulate > 1) + (settings.average is not None)
    lines.append(
        f"memory: {weights / 1e6:.1f} MB of weights, {4 * learn / 1e6:.1f} MB of gradients, "
        f"{4 * moments * learn / 1e6:.1f} MB of the optimizer, and activations{_peak()}"
    )
    seconds = pace.seconds()
    if tuning.steps is not None:
        lines.append(
            f"time: {seconds:.2f} s a step, about {seconds * tuning.steps / 60:.1f} minutes for "
            f"{tuning.steps} steps, without validation"
        )
    else:
        lines.append(
            f"time: {seconds:.2f} s a step, about {60 * (settings.minutes or 0) / seconds:.0f} "
            f"steps in {settings.minutes} minutes"
        )
    return lines


class _Pace(keras.callbacks.Callback):
    """Times steps."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = [monotonic()]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append(monotonic())

    def seconds(self) -> float:
        """Of a step; those that compile are longer."""
        return float(np.min(np.diff(self.ends)))


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))


def _bytes(variable: Any) -> int:
    return {"int8": 1, "uint8": 1, "bfloat16": 2, "float16": 2}.get(str(variable.dtype), 4)


def _peak() -> str:
    """The most memory that the process has used, where the system tells it."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"; the process has used {peak / 1e6:.0f} MB at most"
