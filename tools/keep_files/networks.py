"""Small networks, one a kind, with no number at its initial value."""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.layers import (
    conv_ffn,
    convolution,
    large_kernel_conv,
    layer_scale,
    mobile_one_block,
    multi_scale,
    positional_encoding,
    repmixer_block,
    squeeze_excitation,
    token_selector,
)
from dl_techniques.layers.activations import gelu
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.layers.name_tags import NameTags
from dl_techniques.models.vision.efficientnet_lite.model import EfficientNetLite
from dl_techniques.models.vision.fast_vlm import attention, components
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne, MobileOneStage
from dl_techniques.models.vision.towers.model import Towers
from tools.keep_files.inputs import MAP, SIDE
from tools.random_weights import randomize

CLASSES = 3
CHANNELS = MAP[-1]


def fast_vlm(**options: Any) -> FastVLM:
    """Two stages of one block each, with SE and a tail; attention in the second."""
    arguments: dict[str, Any] = {
        "num_classes": CLASSES,
        "embed_dims": (8, 16),
        "depths": (1, 1),
        "num_heads": (1, 2),
        "mlp_ratio": 2.0,
        "use_se": True,
        "tail_expansion": 2,
        "input_shape": (SIDE, SIDE, 3),
    }
    network = FastVLM(**{**arguments, **options})
    randomize(network)
    return network


def mobile_one() -> MobileOne:
    """Two stages of one pair each, SE in the second."""
    network = MobileOne(
        num_classes=CLASSES, embed_dims=(8, 8), depths=(1, 1), stem_dim=8, se_depths=(0, 1),
        input_shape=(SIDE, SIDE, 3),
    )  # fmt: skip
    randomize(network)
    return network


def efficientnet_lite() -> EfficientNetLite:
    """Two stages, the second with two blocks, of which one adds its input."""
    network = EfficientNetLite(
        num_classes=CLASSES, embed_dims=(8, 8), depths=(1, 2), kernel_sizes=(3, 5),
        strides=(1, 2), expansions=(1, 2), stem_dim=8, head_dim=16,
        input_shape=(SIDE, SIDE, 3),
    )  # fmt: skip
    randomize(network)
    return network


def towers() -> Towers:
    """Two networks, the first at half the size, and tags of the second."""
    first = fast_vlm(
        include_top=False, use_se=False, tail_expansion=0, input_shape=(SIDE // 2, SIDE // 2, 3)
    )
    second = EfficientNetLite(
        include_top=False, embed_dims=(8, 8), depths=(1, 1), kernel_sizes=(3, 5), strides=(1, 2),
        expansions=(1, 2), stem_dim=8, head_dim=16, input_shape=(SIDE, SIDE, 3),
    )  # fmt: skip
    randomize(second)
    tags = NameTags(("cat", "dog", "sun"), (0, 1, 1, 2), 2, ("photograph", "person"), 4, 2)
    tags.build((None, 8, 8, 16))
    randomize(tags)
    return Towers([first, second], tags)


def nested() -> keras.Model:
    """A user's functional model: their scaling, a fused encoder, their classifier."""
    picture = keras.Input((SIDE, SIDE, 3), name="picture")
    encoder = fast_vlm(include_top=False, name="encoder")
    encoder.reparameterize()
    x = encoder(keras.layers.Rescaling(0.5, name="rescaling")(picture))
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    model = keras.Model(picture, keras.layers.Dense(2, name="classes")(x), name="nested")
    randomize(keras.Sequential([model.get_layer("classes")]))
    return model


def plain() -> keras.Model:
    """A user's functional model of the layers that int8 and fake quantization replace."""
    picture = keras.Input((SIDE, SIDE, 3), name="picture")
    options = {"padding": "same", "activation": "relu", "data_format": "channels_last"}
    x = keras.layers.Conv2D(8, 3, strides=4, name="conv2d", **options)(picture)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise2d", **options)(x)
    x = convolution.Conv(8, 1, activation="relu", name="conv")(x)
    x = convolution.DepthwiseConv(3, activation="relu", name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="pooling")(x)
    model = keras.Model(picture, keras.layers.Dense(CLASSES, name="dense")(x), name="plain")
    randomize(model)
    return model


def layers() -> keras.Model:
    """Every layer of the package by itself in a user's model: float[B, 8, 8, 8] in."""
    inputs = keras.Input(MAP, name="map")
    outputs: list[Any] = []
    for number, layer in enumerate(_layers()):
        outputs.append(keras.layers.Flatten(name=f"flat_{number}")(layer(inputs)))
    tokens = keras.layers.Reshape((-1, CHANNELS), name="tokens")(inputs)
    selected = token_selector.TokenSelector(5, trained=True, name="selector")(tokens)
    half = convolution.Conv(4, 1, strides=2, name="half")(inputs)
    joined = multi_scale.MultiScaleFeatures(name="joined")([inputs, half])
    drawn = keras.layers.Dense(
        4, kernel_initializer=HostTruncatedNormal(), activation=gelu, name="drawn"
    )(joined)
    outputs += [
        keras.layers.Flatten(name="flat_selected")(selected),
        keras.layers.Flatten(name="flat_drawn")(drawn),
    ]
    model = keras.Model(inputs, keras.layers.Concatenate(name="all")(outputs), name="layers")
    randomize(model)
    return model


def _layers() -> list[keras.layers.Layer]:
    """Each in training form, as a user would make it."""
    return [
        convolution.DepthwiseConv(3, name="depthwise"),
        mobile_one_block.ConvNorm(4, 3, name="conv_norm"),
        mobile_one_block.MobileOneBlock(CHANNELS, 3, use_se=True, name="block"),
        squeeze_excitation.SqueezeExcitation(0.5, name="se"),
        conv_ffn.ConvFFN(16, kernel_size=3, name="ffn"),
        positional_encoding.ConditionalPositionalEncoding(name="positions"),
        large_kernel_conv.LargeKernelConv(CHANNELS, use_se=True, name="large"),
        large_kernel_conv.PatchEmbedding(CHANNELS, name="patches"),
        layer_scale.LayerScale(name="layer_scale"),
        layer_scale.StochasticDepth(0.1, name="depth"),
        repmixer_block.RepMixer(name="mixer"),
        repmixer_block.RepMixerBlock(2.0, drop_path_rate=0.1, name="mixer_block"),
        repmixer_block.ConvolutionalStem(CHANNELS, name="stem"),
        attention.Attention(2, name="attention"),
        components.AttentionBlock(2, 2.0, name="attention_block"),
        components.Stage(1, "repmixer", 2, 2.0, positional_encoding=True, name="stage"),
        MobileOneStage(4, 1, name="mobile_stage"),
    ]
