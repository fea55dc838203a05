"""FastVLMBackbone: vision encoder, projector and a text decoder as one Keras model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_hub

from dl_techniques.errors import VariantError
from dl_techniques.layers.freezing import flags_config, set_flags, take_flags
from dl_techniques.layers.token_selector import TokenSelector
from dl_techniques.models.portable_compile import PortableCompile, portable
from dl_techniques.models.presets.vlm_folder import PresetMixin
from dl_techniques.models.vision.towers import Towers
from dl_techniques.models.vlm.fast_vlm import lora_files
from dl_techniques.models.vlm.fast_vlm.cloning import RefusesCloning
from dl_techniques.models.vlm.fast_vlm.network.decoders import adapt
from dl_techniques.models.vlm.fast_vlm.network.image_embedding import (
    ImageEmbedding,
    ImageSplice,
    Projector,
)
from dl_techniques.runtime.torch_parameters import TorchParametersMixin


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMBackbone(
    PresetMixin, TorchParametersMixin, RefusesCloning, PortableCompile, keras_hub.models.Backbone
):
    """A vision-language model up to the last hidden states.

    Pictures go through the encoder and the projector; their rows replace the placeholder
    tokens of the text; the decoder's layers read the result. The layers of `text_backbone` are
    used, not copied: its weights are this model's weights.

    Inputs, a dict of

    - `images`: float[B, N, S, S, 3], N pictures per prompt (the most of any prompt; may be 0);
    - `vision_indices`: int[B, N * T], the position in `token_ids` of every picture row, or `L`
      for the rows of an unused picture slot;
    - `token_ids`: int[B, L], with any valid id at the places of the pictures;
    - `padding_mask`: int or bool[B, L], 0 where there is no token.

    Output: float[B, L, D].

    Pictures in unused slots do pass through the encoder. That changes nothing in inference; when
    the encoder's batch statistics are being trained, prefer batches of equally many pictures.

    Args:
        vision_encoder: keras.Model. float[M, S, S, 3] -> float[M, h, w, C], e.g.
            `FastVLM.from_variant("nano", include_top=False)`.
        text_backbone: One of keras_hub's Qwen, Qwen3, Llama, Llama3, Phi3, OPT, Gemma3 backbones.
        projector_dim: int. Width between the projector's two layers. Defaults to the decoder's.
        image_tokens: int. Rows of a picture to keep, the others are merged into them: see
            `TokenSelector`. Defaults to all.
        trained_selection: Whether the choice of rows has a weight that training moves.
        pool: (rows, columns) of a grid that the encoder's map is averaged to: see `Projector`.
        enhance: Whether a `FeatureEnhancer` follows the projector.
        dtype: Policy of the projector and of this model; the two parts keep their own.
        **kwargs: `name`, `trainable` of `keras.Model`; a model that is not trainable freezes its
            parts.

    Raises:
        VariantError: an encoder that scales pixels itself (`include_preprocessing=True`).

    Example:
        >>> import keras, keras_hub
        >>> picture = keras.Input((32, 32, 3))
        >>> encoder = keras.Model(picture, keras.layers.Conv2D(6, 16, 16)(picture))
        >>> decoder = keras_hub.models.QwenBackbone(
        ...     vocabulary_size=64, num_layers=1, num_query_heads=2, num_key_value_heads=1,
        ...     hidden_dim=8, intermediate_dim=16)
        >>> backbone = FastVLMBackbone(encoder, decoder)
        >>> backbone.num_image_tokens, backbone.output_shape
        (4, (None, None, 8))

    Reference: FastVLM, https://arxiv.org/abs/2412.13303
    """

    cloned_part = "image_embedding"

    def __init__(
        self,
        vision_encoder: keras.Model,
        text_backbone: keras_hub.models.Backbone,
        projector_dim: int | None = None,
        dtype: Any = None,
        image_tokens: int | None = None,
        trained_selection: bool = False,
        pool: Sequence[int] | None = None,
        enhance: bool = False,
        **kwargs: Any,
    ) -> None:
        # Keras' own reading of it leaves the parts as they are, or not, as the backend has it.
        trainable = kwargs.pop("trainable", True)
        if getattr(vision_encoder, "include_preprocessing", False):
            raise VariantError(
                f"{vision_encoder.name} scales pixels 0..255 itself, and a model's image converter "
                "has done that already: take the encoder with include_preprocessing=False, e.g. "
                "FastVLM.from_preset(folder, include_preprocessing=False)"
            )

        # === Layers ===
        decoder = adapt(text_backbone)
        self.vision_encoder = vision_encoder
        self.text_backbone = text_backbone
        self.token_embedding = text_backbone.token_embedding
        self.projector = Projector(
            decoder.hidden_dim, projector_dim, pool, enhance, dtype=dtype, name="projector"
        )
        places = _places(vision_encoder, self.projector)
        tags = vision_encoder.num_tag_rows if isinstance(vision_encoder, Towers) else 0
        selector = TokenSelector(
            _checked(image_tokens, places, tags), trained_selection, tags, dtype=dtype,
            name="selector",
        )  # fmt: skip
        self.image_embedding = ImageEmbedding(
            vision_encoder, self.projector, selector, dtype=dtype, name="image_embedding"
        )
        self.image_splice = ImageSplice(dtype=dtype, name="image_splice")

        # === Functional Model ===
        size = tuple(vision_encoder.input_shape[1:])
        inputs = {
            "images": keras.Input((None, *size), name="images"),
            "vision_indices": keras.Input((None,), dtype="int32", name="vision_indices"),
            "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
            "padding_mask": keras.Input((None,), dtype="int32", name="padding_mask"),
        }
        rows = self.image_embedding(inputs["images"])
        x = self.image_splice(decoder.embed(inputs["token_ids"]), rows, inputs["vision_indices"])
        outputs = decoder.forward(decoder.add_positions(x), inputs["padding_mask"])
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

        # === Config ===
        self.projector_dim = projector_dim
        self.decoder = decoder
        self.hidden_dim = decoder.hidden_dim
        self.image_size = (size[0], size[1])
        if not trainable:
            set_flags(self, False, {})

    @property
    def parts_with_flags(self) -> list[keras.layers.Layer]:
        """What it consists of; its graph holds the decoder's layers instead of the decoder."""
        return [self.image_embedding, self.image_splice, self.text_backbone]

    @property
    def num_image_tokens(self) -> int | None:
        """Rows per picture, T; None where the encoder takes pictures of any size."""
        kept = self.image_tokens
        return _places(self.vision_encoder, self.projector) if kept is None else kept

    @property
    def image_tokens(self) -> int | None:
        """How many rows of every picture are kept; None for all."""
        return self.image_embedding.selector.num_tokens

    def select_tokens(self, number: int | None) -> None:
        """Changes how many rows of every picture are kept.

        Functions compiled from this model before go on with the old number: on a
        `FastVLMCausalLM` call its own `select_tokens`, which forgets them.

        Args:
            number: Rows to keep, with those of name tags, which stay; None for all.

        Raises:
            ValueError: fewer than 1 beside name tags, or more than a picture has.
        """
        selector = self.image_embedding.selector
        places = _places(self.vision_encoder, self.projector)
        selector.num_tokens = _checked(number, places, selector.num_last)

    def default_lora_layer_names(self) -> list[str]:
        """The layers that LoRA changes: those the decoder names."""
        names: list[str] = self.text_backbone.default_lora_layer_names()
        return names

    def save_lora_weights(self, filepath: str | Path) -> None:
        """Writes the LoRA weights and what is trained beside them, layers named by their paths.

        Args:
            filepath: ends in `.lora.h5`.

        Raises:
            ValueError: no layer has LoRA, or another ending.

        Example:
            >>> import tempfile
            >>> from dl_techniques import FastVLMCausalLM
            >>> backbone = FastVLMCausalLM.from_preset("demo").backbone
            >>> backbone.enable_lora(rank=2)
            >>> path = tempfile.mkdtemp() + "/tuned.lora.h5"
            >>> backbone.save_lora_weights(path)
            >>> backbone.load_lora_weights(path)
        """
        lora_files.save(self, filepath)

    def load_lora_weights(self, filepath: str | Path) -> None:
        """Reads what `save_lora_weights` wrote, on any backend; enables LoRA where it is not.

        Args:
            filepath: of the file; KerasHub's own with numbered layers is read as well.

        Raises:
            CheckpointError: no such file, a damaged one, or one of other layers, shapes or rank.
        """
        lora_files.load(self, filepath)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the two parts serialized with their own data types."""
        selector = self.image_embedding.selector
        return {
            **super().get_config(),
            "vision_encoder": portable(keras.saving.serialize_keras_object(self.vision_encoder)),
            "text_backbone": portable(keras.saving.serialize_keras_object(self.text_backbone)),
            "projector_dim": self.projector_dim,
            "image_tokens": selector.num_tokens,
            "trained_selection": selector.trained,
            "pool": self.projector.pool,
            "enhance": self.projector.enhancer is not None,
            **flags_config(self),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FastVLMBackbone:
        """Rebuilds the model; a data type given from outside goes to the parts as well.

        Saved configs hold data types as dicts. Anything else is an override, as in
        `from_preset(..., dtype="bfloat16")`, and replaces the plain types of the parts;
        quantized layers keep theirs.
        """
        config = dict(config)
        trainable, parts = take_flags(config)
        dtype = config.get("dtype")
        saved = dtype is None or isinstance(dtype, dict)
        override = None if saved else keras.dtype_policies.get(dtype)
        for part in ("vision_encoder", "text_backbone"):
            if not isinstance(config[part], dict):
                continue
            serialized = portable(copy.deepcopy(config[part]))
            if _is_plain(override):
                serialized = _with_dtype(serialized, keras.dtype_policies.serialize(override))
            config[part] = keras.saving.deserialize_keras_object(serialized)
        backbone: FastVLMBackbone = super().from_config(config)
        if parts or not trainable:
            set_flags(backbone, trainable, parts)
        elif not backbone.text_backbone.trainable:
            # KerasHub's decoders give this flag to themselves and not to their layers.
            set_flags(backbone.text_backbone, False, {})
        return backbone


def _places(vision_encoder: keras.Model, projector: Projector) -> int | None:
    """Rows that the projector gives; None where the encoder takes pictures of any size."""
    shape = vision_encoder.compute_output_shape((None, *vision_encoder.input_shape[1:]))
    places = None if None in shape[1:3] else int(shape[1] * shape[2])
    rows: int | None = projector.compute_output_shape((None, places, None))[1]
    return rows


def _checked(number: int | None, places: int | None, tags: int) -> int | None:
    """A number of rows to keep, if there are so many, and more than those of name tags."""
    if number is not None and (number <= tags or (places is not None and number > places)):
        kept = f" ({tags} of them tell name tags and always stay)" if tags else ""
        raise ValueError(
            f"image_tokens={number}: expected {tags + 1} to {places or 'the rows of a picture'}"
            f"{kept}, or None"
        )
    return number


def _is_plain(policy: keras.DTypePolicy | None) -> bool:
    """Whether a policy is one floating type for everything: neither quantized nor a map."""
    return type(policy) is keras.DTypePolicy


def _with_dtype(config: Any, policy: dict[str, Any]) -> Any:
    """A copy of a serialized model in which every plain data type policy is `policy`."""
    if isinstance(config, (list, tuple)):
        return type(config)(_with_dtype(item, policy) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return policy
    return {key: _with_dtype(value, policy) for key, value in config.items()}
