"""Settings of a fine-tuning: our names, those of other trainers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dl_techniques.errors import TrainingError
from dl_techniques.training.fine_tune.fine_tune_settings import assignments, from_file, from_values

pytestmark = pytest.mark.once
BASE = {"data": "my.jsonl", "output": "my_model"}

OTHERS = """
model: {name: fastvlm_0.5b, vision_encoder: null}
training:
  train_data: [a.jsonl, {path: b.jsonl, weight: 2}]
  val_data: c.jsonl
  output_dir: out
  num_epochs: 2
  batch_size: 4
  learning_rate: 1e-5
  gradient_accumulation_steps: 8
  mixed_precision: true
  gradient_checkpointing: false
optimization: {use_lora: true, lora_rank: 8, quantization_aware: false}
"""


def test_names_of_other_trainers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(OTHERS)
    told = from_file(path)
    assert (told.preset, told.output, told.epochs) == ("fastvlm_0.5b", "out", 2)
    assert [source.path for source in told.data] == ["a.jsonl", "b.jsonl"]
    assert [source.weight for source in told.data] == [1.0, 2]
    assert told.val_data[0].path == "c.jsonl"
    assert (told.batch_size, told.accumulate, told.learning_rate) == (4, 8, 1e-5)
    assert (told.lora_rank, told.dtype) == (8, "mixed_bfloat16")
    changed = from_file(path, assignments(["training.num_epochs=1", "lora_rank=2"]))
    assert (changed.epochs, changed.lora_rank) == (1, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"learning_rat": 1}, "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ({"num_epoch": 1}, "did you mean 'epochs'"),
        ({"training": {"gradient_checkpointing": True}}, "not read: activations are kept"),
        ({"language_model": "qwen"}, "not read: the preset holds its decoder"),
        ({"epochs": 1, "minutes": 2}, "epochs and minutes are given"),
        ({"epochs": 1, "num_epochs": 2}, "num_epochs says again what epochs says"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "many"}, "batch_size must be int"),
        ({"quantize": "int8"}, "give lora_rank"),
        ({"quantize": "int2", "lora_rank": 2}, "expected int8 or int4"),
        ({"dtype": "float16"}, "expected one of float32, mixed_bfloat16"),
        ({"patience": 2}, "give val_data"),
        ({"output": ""}, "no output"),
        ({"data": []}, "nothing to learn from"),
    ],
)
def test_what_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        from_values({**BASE, **more})


def test_lora_that_is_not_used_has_no_rank() -> None:
    told = from_values({**BASE, "optimization": {"use_lora": False, "lora_rank": 8}})
    assert told.lora_rank is None and told.rate == 1e-4
    assert from_values({**BASE, "use_lora": True}).lora_rank == 16


def test_assignments() -> None:
    assert assignments(["a.b=[1, 2]", "c=x=y"]) == {"b": [1, 2], "c": "x=y"}
    with pytest.raises(TrainingError, match="expected key=value"):
        assignments(["alone"])
    with pytest.raises(TrainingError, match="no YAML"):
        assignments(["a=[1"])
