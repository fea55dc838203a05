"""Bringing a saved network back into its quantized form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dl_techniques.errors import CompressionError
from dl_techniques.layers.quantized import fake_quant_layers, int8_weights, static_int8

if TYPE_CHECKING:
    import keras

KINDS: dict[str, Callable[[Any, Mapping[str, Mapping[str, Any]]], None]] = {
    fake_quant_layers.KIND: fake_quant_layers.attach,
    int8_weights.KIND: int8_weights.attach,
    static_int8.KIND: static_int8.attach,
}


def restore(network: keras.Model, quantization: Mapping[str, Any]) -> None:
    """Quantizes a network that was just made from its config, as that config says.

    Args:
        network: a folded `SwitchableModel` with float layers.
        quantization: the config's entry of this name: `kind` and `layers`.

    Raises:
        CompressionError: an unknown kind, or layers that the network does not have.
    """
    kind = quantization.get("kind")
    if kind not in KINDS:
        raise CompressionError(
            f"{network.name}: its config says quantization {kind!r}; this version knows "
            f"{', '.join(KINDS)}"
        )
    KINDS[kind](network, quantization["layers"])
