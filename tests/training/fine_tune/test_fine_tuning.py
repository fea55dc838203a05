"""From records to a trained preset: whole, killed and gone on with, by LoRA, with validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLMCausalLM
from dl_techniques.data.records.training_files import TrainingSource, read_training_files
from dl_techniques.errors import TrainingError
from dl_techniques.training.fine_tune import fine_tune, fine_tuning, from_values, look_ahead
from dl_techniques.training.fine_tune.fine_tuning import Tuning
from dl_techniques.training.fine_tune.peft_files import merge_adapter
from dl_techniques.training.fine_tune.watching import answers_of, questions_of


def settings(preset: str, records: Path, output: Path, **more: Any) -> Any:
    values = {"preset": preset, "data": str(records), "output": str(output), "batch_size": 2}
    return from_values({**values, "learning_rate": 0.01, "every": 2, "epochs": 2, **more})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights_of(folder: Path) -> list[np.ndarray]:
    return FastVLMCausalLM.from_preset(str(folder)).get_weights()


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The next training ends by Ctrl-C after so many steps."""
    stage = Tuning.stage

    class Kill(keras.callbacks.Callback):
        left = steps

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def killed(self: Tuning, count: Any, minutes: Any, callbacks: Any) -> Any:
        return stage(self, count, minutes, [*callbacks, Kill()])

    monkeypatch.setattr(fine_tuning.Tuning, "stage", killed)


def test_a_killed_training_ends_with_the_same_weights(
    small_preset: str, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"val_data": str(records), "questions": "why?", "max_new_tokens": 3, "lora_rank": 2}
    more |= {"accumulate": 2, "average": 0.5}
    said: list[str] = []
    whole = settings(small_preset, records, tmp_path / "whole", **more)
    tuned = fine_tune(whole, said.append)
    assert tuned.outcome.steps == 8
    assert any("step 8/8, loss" in line and "waiting for data" in line for line in said)
    killed = settings(small_preset, records, tmp_path / "killed", **more)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_after(patch, 5)
        fine_tune(killed, said.append)
    assert not (tmp_path / "killed").exists()
    fine_tune(killed, said.append)
    for left, right in zip(
        weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed"), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    files = [tmp_path / f"{name}.training" for name in ("whole", "killed")]
    losses = [[line["loss"] for line in lines_of(f / "metrics.jsonl")] for f in files]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    answers = [lines_of(f / "answers.jsonl") for f in files]
    assert answers[0] == answers[1] and [line["step"] for line in answers[0]] == [2, 4, 6, 8]
    # a preset like any other: float32, all of it trainable, no LoRA left
    loaded = FastVLMCausalLM.from_preset(str(tmp_path / "whole"))
    assert all(layer.trainable for layer in loaded.layers)
    # the adapter alone, beside the projector's weights, is what the decoder has learned
    plain = FastVLMCausalLM.from_preset(small_preset)
    merge_adapter(plain.backbone.text_backbone, files[0] / "adapter")
    for left, right in zip(
        plain.backbone.text_backbone.get_weights(),
        loaded.backbone.text_backbone.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(left, right, atol=1e-6)
    # once more does nothing, and other settings do not go on
    assert fine_tune(whole, said.append).outcome.steps == 8
    with pytest.raises(TrainingError, match="learning_rate"):
        fine_tune(
            settings(small_preset, records, tmp_path / "whole", **{**more, "learning_rate": 1.0}),
            said.append,
        )


def test_what_is_frozen_stays_and_the_rest_learns(
    small_preset: str, records: Path, tmp_path: Path
) -> None:
    told = settings(
        small_preset, records, tmp_path / "out", train="projector", steps=2, epochs=None
    )
    fine_tune(told, lambda line: None)
    before, after = (FastVLMCausalLM.from_preset(p) for p in (small_preset, str(tmp_path / "out")))
    moved = {}
    for name in ("vision_encoder", "projector", "text_backbone"):
        pairs = zip(
            getattr(before.backbone, name).get_weights(),
            getattr(after.backbone, name).get_weights(),
            strict=True,
        )
        moved[name] = any((left != right).any() for left, right in pairs)
    assert moved == {"vision_encoder": False, "projector": True, "text_backbone": False}


def test_an_output_of_others_is_kept(small_preset: str, records: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingError, match="exists already"):
        fine_tune(settings(small_preset, records, tmp_path / "out"))


def test_a_look_ahead_writes_nothing(small_preset: str, records: Path, tmp_path: Path) -> None:
    told = settings(small_preset, records, tmp_path / "out", train="projector")
    lines = look_ahead(told)
    assert list(tmp_path.iterdir()) == []
    assert any(line.startswith("decoder: 0 of ") for line in lines)
    assert any("7 records, an epoch: 8 rows in 4 batches of 2" in line for line in lines)
    assert any(line.startswith("memory: ") for line in lines)
    assert any("for 8 steps" in line for line in lines)


def test_the_best_weights_answer_as_the_validation_said(
    small_preset: str, records: Path, tmp_path: Path
) -> None:
    more = {"val_data": str(records), "epochs": 16, "every": 16, "max_new_tokens": 8, "patience": 3}
    told = settings(small_preset, records, tmp_path / "out", **more)
    tuned = fine_tune(told, lambda line: None)
    lines = lines_of(tmp_path / "out.training" / "metrics.jsonl")
    rates = [line["exact_match"] for line in lines]
    assert tuned.exact_match == max(rates) > 0.25
    best = [line for line in lines if line["exact_match"] == max(rates)]
    assert tuned.best_step == max(line["step"] for line in best)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    model = FastVLMCausalLM.from_preset(str(tmp_path / "out"))
    asked = questions_of(read_training_files([TrainingSource(str(records))]).records, 100)
    answers = answers_of(model, asked, 8)
    right = sum(a == q.answer for a, q in zip(answers, asked, strict=True)) / len(asked)
    assert right == pytest.approx(tuned.exact_match)
