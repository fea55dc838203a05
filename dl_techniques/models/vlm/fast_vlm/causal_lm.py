"""FastVLMCausalLM: the model that answers questions about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_hub

from dl_techniques.compat.keras_layers import all_parts
from dl_techniques.data.folders import updated_folder
from dl_techniques.layers.freezing import flags_config, set_flags, take_flags
from dl_techniques.layers.reparameterization import sync_variables
from dl_techniques.models.portable_compile import PortableCompile, portable
from dl_techniques.models.presets.vlm_folder import (
    PresetMixin,
    part_of_preset,
    store_weights_as,
)
from dl_techniques.models.vision.keras_quantization import layer_filter
from dl_techniques.models.vlm.fast_vlm.answer.generation import GenerationMixin
from dl_techniques.models.vlm.fast_vlm.answer.rows.certainty import check_divisor
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import (
    check_sampler,
    check_temperature,
    resolve,
)
from dl_techniques.models.vlm.fast_vlm.cloning import RefusesCloning
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.network.variants import FastVLMVariant, build_variant
from dl_techniques.models.vlm.fast_vlm.picture_side import PictureSide
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.training import TrainingMixin
from dl_techniques.runtime.memory import older_objects_kept
from dl_techniques.runtime.torch_parameters import TorchParametersMixin
from dl_techniques.runtime.traced_once import TracedOnce

TOP_K = 50


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMCausalLM(
    PresetMixin,
    PictureSide,
    GenerationMixin,
    TrainingMixin,
    TorchParametersMixin,
    RefusesCloning,
    PortableCompile,
    TracedOnce,
    keras_hub.models.CausalLM,
):
    """Pictures and a question in, an answer out.

    A KerasHub `CausalLM`: `compile(sampler=...)`, `generate`, `fit`, `backbone.enable_lora`,
    `quantize`, `save_to_preset`, `from_preset` work as there. Beyond it: `stream` gives the
    answer as it is written, and `encode_images`, `prefill`, `decode_step` are the phases that
    everything stands on.

    Args:
        backbone: `FastVLMBackbone`.
        preprocessor: `FastVLMCausalLMPreprocessor` or None. None: arrays in, arrays out.
        max_new_tokens: int or None. Longest answer where a call says nothing about lengths.
            None: what the longest sequence leaves.
        temperature: float. Above 0, answers are drawn from the 50 likeliest tokens at this
            temperature, unless `compile` or a call names a sampler. Defaults to 0 (greedy).
        certainty_temperature: float. Divides the log-probability of an answer where its certainty
            is asked for; fit it by `dl_techniques.evaluation.calibration`. Defaults to 1.
        **kwargs: `name`, `compile` of a KerasHub task.

    Example:
        >>> import keras, keras_hub, numpy as np
        >>> from dl_techniques import FastVLMImageConverter, FastVLMTokenizer
        >>> picture = keras.Input((32, 32, 3))
        >>> encoder = keras.Model(picture, keras.layers.Conv2D(6, 16, 16)(picture))
        >>> tokenizer = FastVLMTokenizer.from_texts(["what is this?"], vocabulary_size=300)
        >>> preprocessor = FastVLMCausalLMPreprocessor(
        ...     tokenizer, FastVLMImageConverter(32), sequence_length=160, num_image_tokens=4)
        >>> decoder = keras_hub.models.QwenBackbone(
        ...     vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2,
        ...     num_key_value_heads=1, hidden_dim=8, intermediate_dim=16)
        >>> model = FastVLMCausalLM(FastVLMBackbone(encoder, decoder), preprocessor)
        >>> image = np.zeros((20, 30, 3), "uint8")
        >>> answer = model.generate({"prompts": "Why?", "images": image}, max_new_tokens=3)
        >>> isinstance(answer, str)
        True

    Reference: FastVLM, https://arxiv.org/abs/2412.13303
    """

    backbone_cls = FastVLMBackbone
    preprocessor_cls = FastVLMCausalLMPreprocessor

    def __init__(
        self,
        backbone: FastVLMBackbone,
        preprocessor: FastVLMCausalLMPreprocessor | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        certainty_temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.max_new_tokens = max_new_tokens
        self.temperature = check_temperature(temperature)
        self.certainty_temperature = check_divisor(certainty_temperature)

        # === Functional Model ===
        inputs = backbone.input
        outputs = backbone.decoder.logits(backbone(inputs))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    @classmethod
    def from_variant(
        cls,
        name: str,
        /,
        tokenizer: keras.layers.Layer | None = None,
        dtype: Any = None,
        **overrides: Any,
    ) -> FastVLMCausalLM:
        """A published size by name, with random weights.

        Args:
            name: `"fastvlm_0.5b"`, `"fastvlm_1.5b"` or `"fastvlm_7b"`.
            tokenizer: makes the model take questions and pictures. None: arrays in, arrays out.
            dtype: policy of all layers.
            **overrides: numbers of the size that are to be others, e.g. `num_layers=2`,
                `image_size=256`.

        Raises:
            VariantError: unknown name or number (the nearest is given), or float16, in which the
                tower overflows.

        Example:
            >>> model = FastVLMCausalLM.from_variant(
            ...     "fastvlm_0.5b", tower="demo", image_size=64, vocabulary_size=64, num_layers=1)
            >>> model.backbone.hidden_dim
            896
        """
        variant = FastVLMVariant.named(name).with_overrides(overrides)
        backbone = build_variant(variant, dtype)
        preprocessor = None
        if tokenizer is not None:
            preprocessor = FastVLMCausalLMPreprocessor(
                tokenizer,
                FastVLMImageConverter(variant.image_size),
                sequence_length=variant.sequence_length,
                num_image_tokens=backbone.num_image_tokens or 1,
                system_prompt=variant.system_prompt,
            )
        return cls(
            backbone,
            preprocessor,
            max_new_tokens=variant.max_new_tokens,
            temperature=variant.temperature,
        )

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        *args: Any,
        num_image_tokens: int | None = None,
        **overrides: Any,
    ) -> FastVLMCausalLM:
        """Loads a model, as `PresetMixin.from_preset`.

        Args:
            preset: As there.
            *args: As there.
            num_image_tokens: As `select_tokens`. Defaults to what the preset says.
            **overrides: As there.
        """
        model: FastVLMCausalLM = super().from_preset(preset, *args, **overrides)
        if num_image_tokens is not None:
            model.select_tokens(num_image_tokens)
        return model

    @property
    def preprocessor(self) -> Any:
        """What turns prompts into arrays, or None."""
        return getattr(self, "_preprocessor", None)

    @preprocessor.setter
    def preprocessor(self, value: Any) -> None:
        # It has no weights and is no part of the network: kept out of what PyTorch tracks.
        object.__setattr__(self, "_preprocessor", value)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        sampler: Any = "auto",
        **kwargs: Any,
    ) -> None:
        """As `keras_hub.models.CausalLM.compile`, with greedy choice as the default.

        Args:
            optimizer: Optimizer, its name, or "auto" for Adam.
            loss: Loss, its name, or "auto" for cross-entropy over the answer's tokens.
            weighted_metrics: List of metrics, or "auto" for token accuracy.
            sampler: Name of a KerasHub sampler or one itself; "auto" for what the model's
                `temperature` says.
            **kwargs: Of `keras.Model.compile`.

        Raises:
            SamplingError: the sampler is unknown, or a number of it means nothing.
        """
        sampler = resolve(_sampler_of(self.temperature) if sampler == "auto" else sampler)
        check_sampler(sampler)
        super().compile(
            optimizer, loss, weighted_metrics=weighted_metrics, sampler=sampler, **kwargs
        )
        self._compiled_form = self._encoder_form()

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            **super().get_config(),
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "certainty_temperature": self.certainty_temperature,
            # A trainable model's parts say themselves what is frozen.
            **({} if self.trainable else flags_config(self)),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FastVLMCausalLM:
        """The inverse of `get_config`."""
        config = dict(config)
        trainable, parts = take_flags(config)
        model: FastVLMCausalLM = super().from_config(config)
        if not trainable:
            set_flags(model, trainable, parts)
        return model

    @property
    def parts_with_flags(self) -> list[keras.layers.Layer]:
        """What it consists of; the layer that gives logits is one of the decoder's."""
        return [self.backbone]

    def get_compile_config(self) -> dict[str, Any] | None:
        """Arguments of `compile`; a sampler that is not KerasHub's own is left out."""
        config: dict[str, Any] | None = super().get_compile_config()
        if config is not None and type(self.sampler).__module__.startswith("keras_hub."):
            config = {**config, "sampler": keras_hub.samplers.serialize(self.sampler)}
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled when it was saved."""
        config = dict(config)
        sampler = portable(config.pop("sampler", "auto"))
        super().compile_from_config(config)
        if sampler != "auto":  # not checked: a file must load, whatever its sampler can answer
            self.sampler = resolve(sampler)

    def quantize(
        self, mode: Any = None, config: Any = None, filters: Any = None, **kw: Any
    ) -> None:
        """Quantizes the decoder and the projector.

        The vision encoder stays as it is: Keras quantizes no convolutions. Make its kernels int8
        by `dl_techniques.compression.quantize_weights(model)`, or its dense layers alone by
        `backbone.vision_encoder.quantize(mode)`; files and presets keep either.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`.
            config: `keras.quantizers.QuantizationConfig` instead of `mode`.
            filters: Further choice of layers, as in `keras.Model.quantize`.
            **kw: Of `keras.Model.quantize`.
        """
        encoder = {
            id(layer) for layer in all_parts(self.backbone.vision_encoder, include_self=True)
        }
        wanted = layer_filter(filters)

        def chosen(layer: keras.layers.Layer) -> bool:
            # Keras warns about every layer that cannot be quantized; those are not meant here.
            able = type(layer).quantize is not keras.layers.Layer.quantize
            return able and id(layer) not in encoder and wanted(layer)

        # Keras collects garbage after every kernel, each time among all objects of the process.
        with older_objects_kept():
            super().quantize(mode, config=config, filters=chosen, **kw)

    def reparameterize(self, fold: bool = False) -> None:
        """Fuses the vision encoder's branches for inference; the answers stay the same.

        Args:
            fold: Also fold what published networks leave unfused, exactly as well.
        """
        before = self._encoder_form()
        self.backbone.vision_encoder.reparameterize(fold=fold)
        self.forget_compiled(before)

    def reset_reparameterization(self) -> None:
        """Brings the vision encoder back to its training form."""
        before = self._encoder_form()
        self.backbone.vision_encoder.reset_reparameterization()
        self.forget_compiled(before)

    @property
    def reparameterized(self) -> bool:
        """Whether the vision encoder is fused."""
        return bool(getattr(self.backbone.vision_encoder, "reparameterized", False))

    def select_tokens(self, number: int | None) -> None:
        """Keeps fewer rows of every picture, which shortens the prompt and the first token's time.

        The preprocessor's placeholders follow. Running chats must be begun anew.

        Args:
            number: Rows to keep, k; the others are merged into them (`TokenSelector`). Rows of
                name tags stay and count. None for all of them, as without this call.

        Raises:
            ValueError: fewer than 1 beside name tags, or more than a picture has.
        """
        self.backbone.select_tokens(number)
        if self.preprocessor is not None and self.backbone.num_image_tokens is not None:
            self.preprocessor.num_image_tokens = self.backbone.num_image_tokens
        self.forget_compiled()

    def forget_compiled(self, form: dict[str, bool] | None = None) -> None:
        """Drops every function that was compiled from the model as it was.

        Args:
            form: The form that the encoder had; None where the form is not what changed.
        """
        optimizer = getattr(self, "optimizer", None)
        begun = optimizer is not None and optimizer.built
        if begun and form is not None and form != self._encoder_form():
            self._compiled_form = {}  # of the optimizer's variables some are gone
        sync_variables(self)
        object.__setattr__(self, "_phases", None)
        for model in (self, self.backbone):
            for name in ("train_function", "test_function", "predict_function"):
                setattr(model, name, None)

    def save_to_preset(
        self,
        preset_dir: str | Path,
        max_shard_size: float | None = 10,
        weights_dtype: str | None = None,
    ) -> None:
        """Writes a folder that `from_preset` reads, as `PresetMixin.save_to_preset`.

        Args:
            preset_dir: As there.
            max_shard_size: Size of a weight file in GB at which another is begun.
            weights_dtype: Float type of the weights on disk, e.g. `"float16"`; they are read
                into the model's own type. Defaults to the variables' type.
        """
        with updated_folder(preset_dir, part_of_preset) as folder:
            super().save_to_preset(folder, max_shard_size=max_shard_size)
            if weights_dtype is not None:
                store_weights_as(folder, weights_dtype)


def _sampler_of(temperature: float) -> Any:
    """How Apple's `predict.py` chooses: transformers' sampling, whose `top_k` is 50."""
    if temperature == 0.0:
        return "greedy"
    return keras_hub.samplers.TopKSampler(k=TOP_K, temperature=temperature)
