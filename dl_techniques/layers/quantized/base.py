"""Which layers can be quantized, and how a built layer becomes a quantized one in place.

A quantized layer is of a class of its own that derives from the float one, so that its config and
its file are its own as well. A built layer is given that class: its variables, its name and its
place in every network that holds it stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from dl_techniques.compat.keras_layers import name_scope_of, named_parts, unlocked
from dl_techniques.errors import CompressionError
from dl_techniques.layers.reparameterization import sync_variables

Axes = tuple[int, ...]


def refuse_quantized(network: keras.Model) -> None:
    """Refuses a network with layers that this package or Keras has quantized.

    Raises:
        CompressionError: their kernels are integers, which cannot be worked on as numbers.
    """
    by_keras = (getattr(layer, "quantization_mode", None) for _, layer in named_parts(network))
    if getattr(network, "quantization", None) is not None or any(by_keras):
        raise CompressionError(f"{network.name} is quantized already; start from the float network")


class QuantizedLayer:
    """Mixin of all quantized layers: where the kernel is, and which of its axes share a scale.

    `scheme` says how the layer is quantized; its meaning is the subclass'.
    """

    default_scheme: Mapping[str, Any] = {}

    def __init__(self, *args: Any, scheme: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.take_scheme({**self.default_scheme, **(scheme or {})})

    def take_scheme(self, scheme: Mapping[str, Any]) -> None:
        """Remembers the scheme and creates what it asks for."""
        self.scheme = dict(scheme)

    def build(self, input_shape: Any) -> None:
        """Builds the float layer, then what quantization adds."""
        super().build(input_shape)  # type: ignore[misc]
        self.build_quantization()

    def build_quantization(self) -> None:
        """Adds the variables and sublayers of the scheme to a built layer."""
        raise NotImplementedError

    @property
    def shared_axes(self) -> Axes:
        """The kernel's axes that share a scale: all but those of the output channels."""
        rank = len(self.float_kernel.shape)
        own_channel = isinstance(self, keras.layers.DepthwiseConv2D)
        return (0, 1) if own_channel else tuple(range(rank - 1))

    @property
    def float_kernel(self) -> Any:
        """The kernel's variable.

        Raises:
            AttributeError: the layer is not built.
        """
        if self.__dict__.get("_kernel") is None:
            raise AttributeError("a layer has no kernel before it is built")
        return self.__dict__["_kernel"]

    @property
    def kernel(self) -> Any:
        """The kernel that the layer computes with."""
        raise NotImplementedError

    @kernel.setter
    def kernel(self, value: Any) -> None:
        # A depthwise layer keeps its variable under this name, the others under `_kernel`.
        self.__dict__["_kernel"] = value

    def save_own_variables(self, store: Any) -> None:
        """Writes the variables themselves, not what `kernel` computes from them."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote."""
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments of the float layer, and the scheme."""
        return {**super().get_config(), "scheme": dict(self.scheme)}  # type: ignore[misc]


def convert_layer(layer: keras.layers.Layer, cls: type, scheme: Mapping[str, Any]) -> None:
    """Makes a built float layer one of the quantized class `cls`, which derives from its own.

    Args:
        layer: of exactly the float class.
        cls: the quantized class.
        scheme: how it is quantized; missing entries are the class' defaults.
    """
    with unlocked(layer):
        if "kernel" in layer.__dict__:
            layer.__dict__["_kernel"] = layer.__dict__.pop("kernel")
        object.__setattr__(layer, "__class__", cls)
        layer.take_scheme({**cls.default_scheme, **scheme})  # type: ignore[attr-defined]
        with name_scope_of(layer):
            layer.build_quantization()
    if not layer.trainable:
        layer.trainable = False  # what has come in too


def convert(
    model: keras.Model, classes: Mapping[type, type], table: Mapping[str, Mapping[str, Any]]
) -> None:
    """Converts the layers of a model that a table names, in place.

    Args:
        model: a built Keras model.
        classes: float class -> quantized class.
        table: path of a layer -> its scheme.

    Raises:
        CompressionError: the model has no such layer.
    """
    layers = dict(named_parts(model))
    for path, scheme in table.items():
        cls = classes.get(type(layers.get(path)))
        if cls is None:
            raise CompressionError(
                f"{model.name} has no float layer {path!r} that could be quantized, but its "
                "config names one; it was saved by another version or changed by hand"
            )
        convert_layer(layers[path], cls, scheme)
    sync_variables(model)
    for function in ("train_function", "test_function", "predict_function"):
        setattr(model, function, None)


def note(network: keras.Model, kind: str, table: Mapping[str, Mapping[str, Any]]) -> None:
    """Lets a network's config say how its layers are quantized.

    Args:
        network: a `SwitchableModel`.
        kind: which family of quantized layers, a key of `quantized_networks.KINDS`.
        table: path of a layer -> its scheme.
    """
    layers = {path: dict(scheme) for path, scheme in table.items()}
    # Plain data, no part of the network: kept out of what the backends track.
    object.__setattr__(network, "quantization", {"kind": kind, "layers": layers})


def attach_classes(
    network: keras.Model,
    classes: Mapping[type, type],
    kind: str,
    table: Mapping[str, Mapping[str, Any]],
) -> None:
    """Converts layers of a folded network and lets its config say so: `convert`, then `note`."""
    convert(network, classes, table)
    note(network, kind, table)


def choose_layers(
    model: keras.Model,
    classes: Mapping[type, type],
    skip: Sequence[str],
    suits: Callable[[Any], bool] = lambda layer: True,
) -> list[str]:
    """Paths of all layers of a model that can be quantized, without those to leave alone.

    Args:
        model: a built Keras model.
        classes: float class -> quantized class.
        skip: regular expressions, searched for in the paths.
        suits: of the layers of these classes, which can be.

    Raises:
        CompressionError: nothing to quantize, or an expression that is none or finds nothing.
    """
    layers = named_parts(model)
    able = [path for path, layer in layers if type(layer) in classes and suits(layer)]
    if not able:
        raise CompressionError(
            f"{model.name} has no convolution or dense layer that could be quantized"
        )
    left: set[str] = set()
    for pattern in [skip] if isinstance(skip, str) else skip:
        try:
            found = {path for path in able if re.search(pattern, path)}
        except re.error as error:
            raise CompressionError(f"skip {pattern!r} is no regular expression: {error}") from error
        if not found:
            raise CompressionError(
                f"skip {pattern!r} finds none of the {len(able)} layers, such as {able[0]!r}"
            )
        left |= found
    return [path for path in able if path not in left]
