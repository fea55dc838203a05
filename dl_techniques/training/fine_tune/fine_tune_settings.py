"""What `fastvlm train` is told: by options, by a recipe in YAML, or by the names of other trainers.

    preset: demo
    data: [my.jsonl, {path: more.csv, weight: 0.5}]
    output: my_model
    epochs: 3
    learning_rate: 0.0002
    lora_rank: 16

The same keys may stand below `model`, `data`, `training` and `optimization`, as in

    model: {name: demo}
    training: {train_data: my.jsonl, output_dir: my_model, num_epochs: 3}
    optimization: {use_lora: true, lora_rank: 16}
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_techniques.data.records.training_files import TrainingSource, source_of
from dl_techniques.errors import TrainingError
from dl_techniques.training.settings import check_keys, part_from, read_yaml

SECTIONS = ("model", "data", "training", "optimization")
OTHER_NAMES = {
    "name": "preset",
    "model_name": "preset",
    "train_data": "data",
    "output_dir": "output",
    "num_epochs": "epochs",
    "gradient_accumulation_steps": "accumulate",
    "mixed_precision": "dtype",
    "max_steps": "steps",
    "lora_r": "lora_rank",
}
"""Names of other trainers -> ours."""
REFUSED = {
    "vision_encoder": "the preset holds its tower; name another preset",
    "language_model": "the preset holds its decoder; name another preset",
    "quantization_aware": "nothing is trained with rounding; quantize afterwards",
    "gradient_checkpointing": "activations are kept; take a smaller batch_size and accumulate",
}
"""Names of other trainers that nothing here does, and what to do instead; false is taken."""
PRECISIONS = {
    True: "mixed_bfloat16",
    False: "float32",
    "bf16": "mixed_bfloat16",
    "bfloat16": "mixed_bfloat16",
    "no": "float32",
}
DTYPES = ("float32", "mixed_bfloat16")
DEFAULT_LORA_RANK = 16


@dataclass(frozen=True)
class FineTune:
    """One training of a vision-language model.

    Attributes:
        data: files and folders to learn from.
        output: folder of the trained model; its training stands beside it, in `OUTPUT.training`.
        preset: that it begins with.
        val_data: questions that are answered between steps; the best weights are kept then.
        epochs: of the data; 3 unless steps or minutes are given.
        steps: batches.
        minutes: of training.
        batch_size: rows of a batch.
        accumulate: batches whose gradients make an update.
        train: parts that learn: tower, projector, decoder.
        lora_rank: the decoder learns by LoRA alone; None for all its weights.
        lora_alpha: of LoRA; None for its rank.
        quantize: "int8" or "int4": of the decoder's frozen weights, with LoRA.
        dtype: "float32", or "mixed_bfloat16".
        learning_rate: the highest; None for 2e-4 with LoRA, 1e-4 without.
        tower_rate: share of it for the tower.
        projector_rate: share of it for the projector.
        warmup: share of the updates in which the rate rises.
        weight_decay: of matrices and kernels.
        clip_norm: most length of all gradients together; None does not clip.
        average: share of a moving average of the weights that stays at each update; None for none.
        every: steps between two states, and two validations; None for an epoch, 100 at most.
        patience: validations without a better one that end the training; None for never.
        val_limit: most validation questions.
        questions: asked about the first pictures of the validation data and written to
            `answers.jsonl`, to be looked at.
        max_new_tokens: longest answer of a validation.
        skip_bad: most bad records to leave out.
        max_length: most tokens of a row; None for what the preset says.
        seed: of order, fresh weights and dropout.

    Raises:
        TrainingError: numbers that cannot be, or that do not go together.
    """

    data: tuple[TrainingSource, ...]
    output: str
    preset: str = "demo"
    val_data: tuple[TrainingSource, ...] = ()
    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
    accumulate: int = 1
    train: tuple[str, ...] = ("projector", "decoder")
    lora_rank: int | None = None
    lora_alpha: float | None = None
    quantize: str | None = None
    dtype: str = "float32"
    learning_rate: float | None = None
    tower_rate: float = 0.1
    projector_rate: float = 1.0
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    average: float | None = None
    every: int | None = None
    patience: int | None = None
    val_limit: int = 100
    questions: tuple[str, ...] = ()
    max_new_tokens: int = 32
    skip_bad: int = 0
    max_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks what can be checked without the model."""
        if not self.data:
            raise TrainingError("nothing to learn from: name a file or a folder as data")
        if not self.output:
            raise TrainingError("no output: name the folder that the trained model is written to")
        lengths = [n for n in ("epochs", "steps", "minutes") if getattr(self, n) is not None]
        if len(lengths) > 1:
            raise TrainingError(f"{' and '.join(lengths)} are given; expected one of them")
        positive = ("epochs", "steps", "minutes", "batch_size", "accumulate", "lora_rank",
                    "learning_rate", "every", "patience", "val_limit", "max_length")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} is {value}; expected more than 0")
        if self.dtype not in DTYPES:
            raise TrainingError(f"dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if self.quantize is not None and self.quantize not in ("int8", "int4"):
            raise TrainingError(f"quantize is {self.quantize!r}; expected int8 or int4")
        if self.quantize is not None and self.lora_rank is None:
            raise TrainingError(f"quantize={self.quantize} learns by LoRA alone: give lora_rank")
        if self.patience is not None and not self.val_data:
            raise TrainingError("patience counts validations: give val_data")

    @property
    def rate(self) -> float:
        """The highest rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-4 if self.lora_rank is None else 2e-4

    @property
    def all_epochs(self) -> int | None:
        """Epochs to train; None where steps or minutes are given."""
        return 3 if self.steps is None and self.minutes is None and not self.epochs else self.epochs


def from_values(values: Mapping[str, Any], source: str = "options") -> FineTune:
    """Settings from plain values, in our names or those of other trainers.

    Raises:
        TrainingError: an unknown key (the nearest right one is named) or a wrong value.

    Example:
        >>> told = {"training": {"train_data": "my.jsonl", "output_dir": "m", "num_epochs": 2}}
        >>> from_values(told).epochs
        2
    """
    plain = _translated(_flat(values, source), source)
    if "learning_rate" in plain:
        plain["learning_rate"] = _number(plain["learning_rate"])
    data, val_data = (_sources(plain.pop(name, ())) for name in ("data", "val_data"))
    output = plain.pop("output", "")
    if isinstance(plain.get("train"), str):
        plain["train"] = [plain["train"]]
    if isinstance(plain.get("questions"), str):
        plain["questions"] = [plain["questions"]]
    return part_from(FineTune, plain, source, output=str(output), data=data, val_data=val_data)


def from_file(path: str | Path, changes: Mapping[str, Any] | None = None) -> FineTune:
    """Settings from a recipe in YAML.

    Args:
        path: of the file. Paths in it start from the working folder.
        changes: further keys, which replace the recipe's.

    Raises:
        TrainingError: no such file, no YAML, an unknown key or a wrong value.
    """
    path = Path(path)
    values = read_yaml(path, SECTIONS)
    told = _translated(_flat(values, path.name), path.name)
    more = _translated(_flat(changes or {}, "options"), "options")
    return from_values({**told, **more}, path.name)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping; values are read as YAML, sections before a dot are dropped.

    Raises:
        TrainingError: a text without `=`, or a value that is no YAML.

    Example:
        >>> assignments(["training.epochs=2", "train=[projector]"])
        {'epochs': 2, 'train': ['projector']}
    """
    import yaml

    made = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise TrainingError(f"--set {text!r}: expected key=value")
        try:
            made[key.strip().rpartition(".")[2]] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise TrainingError(f"--set {text!r}: {value!r} is no YAML") from error
    return made


def _known() -> list[str]:
    return [f.name for f in dataclasses.fields(FineTune)]


def _flat(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Keys of the sections and those beside them, in one mapping."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = {key: value}
        if key in SECTIONS and isinstance(value, Mapping) and "path" not in value:
            inner = dict(value)
        elif key == "model" and isinstance(value, str):
            inner = {"preset": value}
        for name, given in inner.items():
            if name in flat:
                raise TrainingError(f"{source}: {name} is given twice")
            flat[name] = given
    return flat


def _translated(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Our names for those of other trainers."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if key in REFUSED:
            if value not in (False, None, "none"):
                raise TrainingError(f"{source}: {key} is not read: {REFUSED[key]}")
            continue
        if key == "use_lora":
            if value:
                plain.setdefault("lora_rank", values.get("lora_rank", DEFAULT_LORA_RANK))
            continue
        if key in ("lora_rank", "lora_r") and values.get("use_lora") is False:
            continue
        name = OTHER_NAMES.get(key, key)
        if name not in _known():
            near = difflib.get_close_matches(key, [*_known(), *OTHER_NAMES], n=1)
            if near:
                right = OTHER_NAMES.get(near[0], near[0])
                raise TrainingError(f"{source}: unknown key {key!r}; did you mean {right!r}?")
            check_keys({key: value}, _known(), source)
        if name == "dtype" and isinstance(value, (bool, str)):
            value = PRECISIONS.get(value, value)
        if name in plain and name != "lora_rank":
            raise TrainingError(f"{source}: {key} says again what {name} says")
        plain[name] = value
    return plain


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _sources(value: Any) -> tuple[TrainingSource, ...]:
    several = value if isinstance(value, (list, tuple)) else [value]
    return tuple(one if isinstance(one, TrainingSource) else source_of(one) for one in several)
