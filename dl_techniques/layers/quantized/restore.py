"""Bringing a saved network back into its quantized form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dl_techniques.compression.quantization_aware import KIND as FAKE_QUANT
from dl_techniques.compression.quantization_aware import attach as attach_fake_quant
from dl_techniques.compression.static_int8 import KIND as STATIC_INT8
from dl_techniques.compression.static_int8 import attach as attach_static_int8
from dl_techniques.compression.weight_only import KIND as INT8_WEIGHTS
from dl_techniques.compression.weight_only import attach as attach_int8
from dl_techniques.errors import CompressionError

KINDS: dict[str, Callable[[Any, Mapping[str, Mapping[str, Any]]], None]] = {
    FAKE_QUANT: attach_fake_quant,
    INT8_WEIGHTS: attach_int8,
    STATIC_INT8: attach_static_int8,
}


def restore(network: Any, quantization: Mapping[str, Any]) -> None:
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
