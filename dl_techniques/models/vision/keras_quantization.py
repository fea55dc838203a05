"""Dense layers that Keras itself has quantized: what a network's config says of them.

Keras notes the mode in the data type policy of every layer, and builds a layer of such a policy
with the right variables. A network whose config is that of its constructor names those layers by
their paths instead, and quantizes them again before its weights are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from dl_techniques.compat.keras_layers import quantization_config
from dl_techniques.errors import CompressionError
from dl_techniques.layers.reparameterization import (
    named_parts,
    quantization_mode,
    sync_variables,
)
from dl_techniques.runtime.memory import older_objects_kept

CONFIG_KEY = "keras_quantization"
MODES = ("int8", "int4", "float8")
"""Those that need no text to calibrate on."""


def check_mode(mode: Any, config: Any, name: str) -> None:
    """Refuses modes that no vision network can have.

    Raises:
        CompressionError: says what there is.
    """
    wanted = getattr(config, "mode", None) if mode is None else mode
    if wanted not in MODES:
        raise CompressionError(
            f"{name} cannot be quantized by mode {wanted!r}: Keras makes dense layers of a vision "
            f"network {', '.join(MODES)} (gptq and awq are calibrated on text); convolutions too "
            "become int8 by dl_techniques.compression.quantize_weights"
        )


def layer_filter(filters: Any) -> Callable[[keras.layers.Layer], bool]:
    """Keras' layer filters as one function: None, a regex, several, or a function."""
    if callable(filters):
        return filters
    patterns = [filters] if isinstance(filters, str) else filters
    return lambda layer: patterns is None or any(re.search(p, layer.name) for p in patterns)


def able(layer: keras.layers.Layer) -> bool:
    """Whether Keras can quantize a layer; about the others it would warn one by one."""
    own_class = type(layer) in (keras.layers.Dense, keras.layers.EinsumDense)
    return own_class and quantization_mode(layer) is None


def noted(network: keras.Model) -> dict[str, Any]:
    """What the config says: path of every quantized layer -> Keras' config of its quantization.

    Returns:
        `{CONFIG_KEY: table}`; nothing where no layer is quantized by Keras.

    Raises:
        CompressionError: layers of a mode that cannot be built again without its calibration.
    """
    table: dict[str, Any] = {}
    for path, layer in named_parts(network):
        mode = quantization_mode(layer)
        rule = quantization_config(layer)
        if mode is None or rule is None:
            continue
        if mode not in MODES:
            raise CompressionError(
                f"{network.name}: its layer {path} was quantized by mode {mode!r}, which cannot be "
                f"saved; start from the float network and use {', '.join(MODES)}"
            )
        config = keras.saving.serialize_keras_object(rule)
        table[path] = {"mode": mode, "config": config}
    return {CONFIG_KEY: table} if table else {}


def restore(network: keras.Model, table: Mapping[str, Mapping[str, Any]]) -> None:
    """Quantizes the layers that a config names; their values come from the file.

    Args:
        network: just made from its config, with float layers.
        table: from `noted`.

    Raises:
        CompressionError: the network has no such layer.
    """
    # Keras collects garbage after every kernel, each time among all objects of the process.
    with older_objects_kept():
        _quantize_again(network, table)
    sync_variables(network)


def _quantize_again(network: keras.Model, table: Mapping[str, Mapping[str, Any]]) -> None:
    parts = dict(named_parts(network))
    for path, entry in table.items():
        layer = parts.get(path)
        if layer is None or not able(layer):
            raise CompressionError(
                f"{network.name} has no float layer {path!r} that Keras could quantize, but its "
                "config names one; it was saved by another version or changed by hand"
            )
        config = keras.saving.deserialize_keras_object(entry["config"])
        layer.quantize(entry["mode"] if config is None else None, config=config)
