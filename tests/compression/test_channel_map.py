"""Every weight of a network has its channel sets, in every form."""

from __future__ import annotations

import keras
import pytest

from dl_techniques.compression.channel_map import channel_axes, shortcuts
from dl_techniques.errors import CompressionError
from tests.models.vision.fast_vlm.small_network import make_network, make_smaller_network

pytestmark = pytest.mark.once


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_weight_is_there_once_in_every_form(norm: str) -> None:
    network = make_network(use_se=True, tail_expansion=2, attention_norm=norm)
    for fold in (None, False, True):
        if fold is not None:
            network.reparameterize(fold=fold)
        bounds = channel_axes(network)
        assert sorted(id(b.variable) for b in bounds) == sorted(id(v) for v in network.weights)
        sizes: dict[str, set[int]] = {}
        for variable, axes in bounds:
            assert len(axes) == len(variable.shape)
            for axis, label in enumerate(axes):
                if label is not None:
                    sizes.setdefault(label, set()).add(int(variable.shape[axis]))
        assert all(len(found) == 1 for found in sizes.values())
        widths = [next(iter(sizes[f"width_{i}"])) for i in range(3)]
        assert widths == [8, 16, 32] and sizes["tail"] == {64} and sizes["qkv_2_0"] == {96}


def test_shortcuts_join_two_sets_in_the_branched_form_alone() -> None:
    network = make_smaller_network()
    assert [(s.source, s.target) for s in shortcuts(network)] == [
        ("stem", "width_0"),
        ("patch_1", "width_1"),
    ]
    network.reparameterize()
    assert shortcuts(network) == []


def test_quantized_weights_are_refused() -> None:
    network = make_smaller_network()
    network.head[-1].quantize("int8")
    with pytest.raises(CompressionError, match="quantize afterwards"):
        channel_axes(network)


def test_another_class_is_refused() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(CompressionError, match="channels of a Sequential"):
        channel_axes(model)  # type: ignore[arg-type]
