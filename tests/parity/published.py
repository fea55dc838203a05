"""A network of timm's on disk in both forms, with what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from tests.parity.timm_import import create, outputs, reparameterize_model

# Even in one direction, odd at most strides in the other: both ways to pad in one picture.
SIDES = (64, 53)


@dataclass
class Published:
    """Files and answers of one randomized network."""

    name: str
    train: Path
    fused: Path
    train_state: dict[str, Any]
    fused_state: dict[str, Any]
    pictures: np.ndarray
    answers: dict[str, Any]

    @property
    def stages(self) -> list[Any]:
        """Outputs of stem (MobileOne alone) and stages."""
        return [self.answers[str(i)] for i in range(len(self.answers) - 2)]


GAINS = {"mobileone": 0.55}
"""Three branches of variance 1 / 3 each; a FastViT's layer scales do without."""


def publish(name: str, folder: Path, sides: tuple[int, int] = SIDES) -> Published:
    """Makes timm's network, asks it, and writes it branched and fused."""
    pictures = np.random.default_rng(5).random((2, *sides, 3)).astype("float32")
    network = create(name, gain=GAINS.get(name.split("_")[0], 1.0))
    answers = outputs(network, pictures)
    states = []
    for form in ("train", "fused"):
        network = network if form == "train" else reparameterize_model(network)
        state = {k: v.clone().contiguous() for k, v in network.state_dict().items()}
        save_file(state, folder / f"{form}.safetensors")
        states.append(state)
    return Published(
        name,
        folder / "train.safetensors",
        folder / "fused.safetensors",
        states[0],
        states[1],
        pictures,
        answers,
    )


def check_fused_weights(ours: dict[str, Any], state: dict[str, Any], tolerance: float) -> None:
    """Every array of our fused form against timm's."""
    floats = {k: v.numpy() for k, v in state.items() if "num_batches" not in k}
    assert set(ours) == set(floats)
    for name, array in floats.items():
        error = np.abs(ours[name] - array).max() / np.abs(array).max()
        assert error < tolerance, (name, error)
