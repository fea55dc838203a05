"""A vision-language model learns from conversations in rows of several lengths, killed and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLMCausalLM
from dl_techniques.data import ConversationDataset
from dl_techniques.training import Optimizer, Stage
from tests.models.vlm.fast_vlm.small_model import make_model, pictures
from tests.training.test_stage import Kill, check_same, lines_of, set_values, values_of


def data(model: FastVLMCausalLM) -> ConversationDataset:
    """Some rows are longer than the first bucket, some are not."""
    records = [
        {"prompts": "a?" * (1 + 12 * (i % 3 == 2)), "responses": "red", "images": picture}
        for i, picture in enumerate(pictures(6))
    ]
    buckets = [56, 80]
    return ConversationDataset(records, model.preprocessor, 1, seed=3, length_buckets=buckets)


def stage(model: FastVLMCausalLM, *callbacks: keras.callbacks.Callback) -> Stage:
    model.backbone.vision_encoder.trainable = False
    optimizer = Optimizer(learning_rate=0.01).build(5)
    return Stage(model, data(model), optimizer, steps=5, segment=2, callbacks=callbacks)


@pytest.mark.slow_on_jax
def test_conversations_are_gone_on_with(tmp_path: Path) -> None:
    model = make_model()
    lengths = {data(model).batch(0, index)[1].shape[1] for index in range(6)}
    assert len(lengths) > 1
    start = [np.array(v) for v in model.get_weights()]
    stage(model).run(tmp_path / "whole")
    whole = values_of(model)
    model.set_weights([value.copy() for value in start])
    with pytest.raises(KeyboardInterrupt):
        stage(model, Kill(3)).run(tmp_path / "killed")
    killed = stage(model)
    set_values(model, [np.full_like(value, 7) for value in values_of(model)])
    assert killed.run(tmp_path / "killed").steps == 5
    check_same(model, whole)
    losses: list[Any] = [
        [line["loss"] for line in lines_of(tmp_path / name)] for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3
