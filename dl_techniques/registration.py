"""Keras finds the classes of this package in a file after `import dl_techniques` alone.

Keras looks a registered name up in a dictionary, which a class enters when its module is imported.
Importing all modules for it would cost what `import dl_techniques` promises not to; so stand-ins
enter, and the first use of one imports the module, whose classes then take their places.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

PACKAGE = "dl_techniques"
_VLM = f"{PACKAGE}.models.vlm.fast_vlm"
CLASSES: dict[str, tuple[str, ...]] = {
    f"{PACKAGE}.layers.mobile_one_block": ("ConvNorm", "MobileOneBlock"),
    f"{PACKAGE}.layers.inverted_residual": ("ConvNormActivation", "InvertedResidual"),
    f"{PACKAGE}.layers.squeeze_excitation": ("SqueezeExcitation",),
    f"{PACKAGE}.layers.conv_ffn": ("ConvFFN",),
    f"{PACKAGE}.layers.positional_encoding": ("ConditionalPositionalEncoding",),
    f"{PACKAGE}.layers.initializers": ("HostTruncatedNormal",),
    f"{PACKAGE}.layers.multi_scale": ("MultiScaleFeatures",),
    f"{PACKAGE}.layers.large_kernel_conv": ("LargeKernelConv", "PatchEmbedding"),
    f"{PACKAGE}.layers.convolution": ("Conv", "DepthwiseConv"),
    f"{PACKAGE}.layers.token_selector": ("TokenSelector",),
    f"{PACKAGE}.layers.layer_scale": ("LayerScale", "StochasticDepth"),
    f"{PACKAGE}.layers.repmixer_block": ("RepMixer", "RepMixerBlock", "ConvolutionalStem"),
    f"{PACKAGE}.compression.distillation": ("FeatureDistiller",),
    f"{PACKAGE}.layers.quantized.fake_quant": ("ActivationQuantizer",),
    f"{PACKAGE}.layers.quantized.fake_quant_layers": (
        "FakeQuantConv",
        "FakeQuantDepthwiseConv",
        "FakeQuantConv2D",
        "FakeQuantDepthwiseConv2D",
        "FakeQuantDense",
    ),
    f"{PACKAGE}.layers.quantized.static_int8": ("StaticInt8Conv", "StaticInt8Dense"),
    f"{PACKAGE}.layers.quantized.int8_weights": (
        "Int8Conv",
        "Int8DepthwiseConv",
        "Int8Conv2D",
        "Int8DepthwiseConv2D",
        "Int8Dense",
    ),
    f"{PACKAGE}.models.vision.mobile_one.model": ("MobileOneStage", "MobileOne"),
    f"{PACKAGE}.models.vision.efficientnet_lite.model": (
        "InvertedResidualStage",
        "EfficientNetLite",
    ),
    f"{PACKAGE}.layers.picture_resize": ("PictureResize", "PixelScale"),
    f"{PACKAGE}.layers.name_tags": ("NameTags",),
    f"{PACKAGE}.models.vision.towers.model": ("Towers", "SideBySide"),
    f"{PACKAGE}.models.vision.fast_vlm.model": ("FastVLM",),
    f"{PACKAGE}.models.vision.fast_vlm.components": ("AttentionBlock", "Stage"),
    f"{PACKAGE}.models.vision.fast_vlm.attention": ("Attention",),
    f"{_VLM}.prompt.tokenizer": ("FastVLMTokenizer",),
    f"{_VLM}.prompt.json_tokenizer": ("FastVLMJsonTokenizer",),
    f"{_VLM}.prompt.image_converter": ("FastVLMImageConverter",),
    f"{_VLM}.prompt.preprocessor": ("FastVLMCausalLMPreprocessor",),
    f"{_VLM}.network.projector": ("Projector", "FeatureEnhancer"),
    f"{_VLM}.network.image_embedding": ("ImageEmbedding", "ImageSplice"),
    f"{_VLM}.network.corrected": ("Qwen3Decoder", "Gemma3Decoder", "Llama3Decoder"),
    f"{_VLM}.network.backbone": ("FastVLMBackbone",),
    f"{_VLM}.causal_lm": ("FastVLMCausalLM",),
}
"""Module -> the classes that it registers with Keras."""
FUNCTIONS: dict[str, tuple[str, ...]] = {
    f"{PACKAGE}.layers.activations": ("gelu",),
    f"{PACKAGE}.compression.distillation": ("relative_squared_error",),
}
"""Module -> the functions that it registers with Keras."""


def register_with_keras() -> None:
    """Lets Keras find the classes now, or as soon as it is imported."""
    keras = sys.modules.get("keras")
    if getattr(keras, "saving", None) is not None:  # not in the middle of its own import
        _enter_stand_ins(keras)
    elif not any(isinstance(finder, _KerasWatcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasWatcher())


class _KerasWatcher:
    """Finds Keras as the other finders do, and enters the stand-ins when it has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The specification of Keras; None of everything else."""
        if name != "keras":
            return None
        others: list[Any] = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec: Any = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(load, module)
        return spec

    def _execute(self, load: Callable[[Any], None], keras: Any) -> None:
        load(keras)
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        _enter_stand_ins(keras)


def _enter_stand_ins(keras: Any) -> None:
    known = keras.saving.get_custom_objects()
    for table, stand_in in ((CLASSES, _class_stand_in), (FUNCTIONS, _function_stand_in)):
        for module, names in table.items():
            for name in names:
                if f"{PACKAGE}>{name}" not in known:
                    known[f"{PACKAGE}>{name}"] = stand_in(keras, module, name)


def _real(module: str, name: str) -> Any:
    if module.startswith(_VLM):
        # Says which extra is missing, where one is.
        _ = importlib.import_module(PACKAGE).FastVLMBackbone
    return getattr(importlib.import_module(module), name)


def _class_stand_in(keras: Any, module: str, name: str) -> type:
    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        return _real(module, name)(*args, **kwargs)

    def from_config(cls: type, config: dict[str, Any], **kwargs: Any) -> Any:
        return _real(module, name).from_config(config, **kwargs)

    return type(name, (), {"__new__": new, "from_config": classmethod(from_config)})


def _function_stand_in(keras: Any, module: str, name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return _real(module, name)(*args, **kwargs)

    function.__name__ = name
    # A layer may keep it, and is saved under the same name again.
    registered: Callable[..., Any] = keras.saving.register_keras_serializable(PACKAGE)(function)
    return registered
