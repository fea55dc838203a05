"""The parameters that PyTorch finds in a whole model which was never fitted."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.models.vlm.fast_vlm.small_model import SIZE, make_model

pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="PyTorch only")


def test_parameters_are_all_variables_each_once() -> None:
    model = make_model()
    for part in (model, model.backbone):
        found = list(part.parameters())
        assert {id(p) for p in found} == {id(v.value) for v in part.variables}
        assert len(found) == len(part.variables) > 20
    names = [name for name, _ in model.named_parameters("vlm")]
    assert names == [f"vlm.{v.path}" for v in model.variables]


def test_a_training_loop_in_plain_pytorch_learns() -> None:
    import torch

    model = make_model()
    rows = model.preprocessor(
        {
            "prompts": ["what is this?"],
            "images": np.ones((1, 1, SIZE, SIZE, 3), "uint8"),
            "responses": ["a cat"],
        }
    )
    inputs, labels, weights = rows
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(4):
        model.zero_grad()
        assert all(v.value.grad is None for v in model.trainable_variables)
        logits = model(inputs, training=True)
        each = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(),
            torch.as_tensor(np.asarray(labels)).reshape(-1).long(),
            reduction="none",
        )
        loss = (each * torch.as_tensor(np.asarray(weights)).reshape(-1)).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0], losses
