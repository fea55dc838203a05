"""FastVLMCausalLM: the model that answers questions about pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_hub
from keras_hub.src.utils.pipeline_model import PipelineModel

from dl_techniques.data.dataset import ConversationDataset
from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.generation import GenerationMixin
from dl_techniques.models.vlm.fast_vlm.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.presets import PresetMixin, store_weights_as
from dl_techniques.models.vlm.fast_vlm.records import to_records


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMCausalLM(PresetMixin, GenerationMixin, keras_hub.models.CausalLM):
    """Pictures and a question in, an answer out.

    A KerasHub `CausalLM`: `compile(sampler=...)`, `generate`, `fit`, `backbone.enable_lora`,
    `quantize`, `save_to_preset`, `from_preset` work as there. Beyond it: `stream` gives the
    answer as it is written, and `encode_images`, `prefill`, `decode_step` are the phases that
    everything stands on.

    Args:
        backbone: `FastVLMBackbone`.
        preprocessor: `FastVLMCausalLMPreprocessor` or None. None: arrays in, arrays out.
        **kwargs: `name`, `compile` of a KerasHub task.

    Example:
        >>> import keras, keras_hub
        >>> picture = keras.Input((32, 32, 3))
        >>> encoder = keras.Model(picture, keras.layers.Conv2D(6, 16, 16)(picture))
        >>> tokenizer = FastVLMTokenizer.train(["what is this?"], vocabulary_size=300)
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
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        inputs = backbone.input
        outputs = backbone.decoder.logits(backbone(inputs))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        sampler: Any = "greedy",
        **kwargs: Any,
    ) -> None:
        """As `keras_hub.models.CausalLM.compile`, with greedy choice as the default.

        Args:
            optimizer: Optimizer, its name, or "auto" for Adam.
            loss: Loss, its name, or "auto" for cross-entropy over the answer's tokens.
            weighted_metrics: List of metrics, or "auto" for token accuracy.
            sampler: Name of a KerasHub sampler or one itself.
            **kwargs: Of `keras.Model.compile`.
        """
        super().compile(
            optimizer, loss, weighted_metrics=weighted_metrics, sampler=sampler, **kwargs
        )

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> keras.callbacks.History:
        """Trains on conversations.

        Args:
            x: Prompts with `responses`, or conversations, in any form the preprocessor takes; a
                `keras.utils.PyDataset` of ready batches (`ConversationDataset`); without a
                preprocessor, arrays.
            y: Only for arrays.
            **kwargs: Of `keras.Model.fit`.
        """
        x, kwargs = self._training_data(x, y, kwargs)
        # Past KerasHub's pipeline, which would want TensorFlow or Grain to map the preprocessor.
        return super(PipelineModel, self).fit(x, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Measures loss and metrics on data as in `fit`."""
        kwargs.setdefault("shuffle", False)
        x, kwargs = self._training_data(x, y, kwargs)
        kwargs.pop("shuffle")
        return super(PipelineModel, self).evaluate(x, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Logits float[B, L, vocabulary] on data as in `fit`."""
        kwargs.setdefault("shuffle", False)
        x, kwargs = self._training_data(x, None, kwargs)
        kwargs.pop("shuffle")
        return super(PipelineModel, self).predict(x, **kwargs)

    def _training_data(
        self, x: Any, y: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Batches of arrays, and the arguments that go with them."""
        if self._is_ready(x):
            return x, kwargs if y is None else {**kwargs, "y": y}
        if y is not None:
            raise PromptError("answers belong into `responses` or assistant messages, not into y")
        size = kwargs.pop("batch_size", None) or 32
        validation = kwargs.get("validation_data")
        if validation is not None:
            kwargs = {**kwargs, "validation_data": self._dataset(validation, size, shuffle=False)}
        shuffle = bool(kwargs.get("shuffle", True))
        return self._dataset(x, size, shuffle), {**kwargs, "shuffle": False}

    def _is_ready(self, x: Any) -> bool:
        """Whether data are batches of arrays already, and not conversations."""
        arrays = isinstance(x, Mapping) and "token_ids" in x
        return self.preprocessor is None or arrays or isinstance(x, keras.utils.PyDataset)

    def _dataset(self, x: Any, batch_size: int, shuffle: bool) -> Any:
        if self._is_ready(x):
            return x
        return ConversationDataset(to_records(x), self.preprocessor, batch_size, shuffle=shuffle)

    def quantize(self, mode: Any = None, config: Any = None, filters: Any = None, **kw: Any) -> None:
        """Quantizes the decoder and the projector.

        The vision encoder stays in floating point: Keras quantizes no convolutions, and its few
        dense layers are not worth their error. Quantize it on its own if you want to.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`.
            config: `keras.quantizers.QuantizationConfig` instead of `mode`.
            filters: Further choice of layers, as in `keras.Model.quantize`.
            **kw: Of `keras.Model.quantize`.
        """
        kept = {id(layer) for layer in self.backbone.vision_encoder._flatten_layers()}
        wanted = _layer_filter(filters)
        super().quantize(
            mode, config=config, filters=lambda x: id(x) not in kept and wanted(x), **kw
        )

    def reparameterize(self, fold: bool = False) -> None:
        """Fuses the vision encoder's branches for inference; the answers stay the same.

        Args:
            fold: Also fold what published networks leave unfused, exactly as well.
        """
        self.backbone.vision_encoder.reparameterize(fold=fold)
        self._forget_compiled()

    def reset_reparameterization(self) -> None:
        """Brings the vision encoder back to its training form."""
        self.backbone.vision_encoder.reset_reparameterization()
        self._forget_compiled()

    @property
    def reparameterized(self) -> bool:
        """Whether the vision encoder is fused."""
        return bool(getattr(self.backbone.vision_encoder, "reparameterized", False))

    def _forget_compiled(self) -> None:
        """Drops every function that was compiled from the model as it was."""
        object.__setattr__(self, "_phases", None)
        for name in ("train_function", "test_function", "predict_function", "generate_function"):
            setattr(self, name, None)
            if hasattr(self.backbone, name):
                setattr(self.backbone, name, None)

    def save_to_preset(
        self,
        preset_dir: str | Path,
        max_shard_size: float | None = 10,
        weights_dtype: str | None = None,
    ) -> None:
        """Writes a folder that `from_preset` reads.

        Args:
            preset_dir: The folder; made if needed.
            max_shard_size: Size of a weight file in GB at which another is begun.
            weights_dtype: Float type of the weights on disk, e.g. `"float16"`; they are read
                into the model's own type. Defaults to the variables' type.
        """
        super().save_to_preset(str(preset_dir), max_shard_size=max_shard_size)
        if weights_dtype is not None:
            store_weights_as(preset_dir, weights_dtype)


def _layer_filter(filters: Any) -> Callable[[keras.layers.Layer], bool]:
    """Keras' layer filters as one function: None, a regex, several, or a function."""
    if callable(filters):
        return filters
    patterns = [filters] if isinstance(filters, str) else filters
    return lambda layer: patterns is None or any(re.search(p, layer.name) for p in patterns)
