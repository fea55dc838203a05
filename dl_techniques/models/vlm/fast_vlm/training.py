"""fit(), evaluate() and predict() on conversations, on every backend.

KerasHub maps a preprocessor over the data with TensorFlow or Grain. Ours runs in Python, so the
data become batches in a `keras.utils.PyDataset`, which needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from dl_techniques.compat.keras_hub_pipeline import PipelineModel
from dl_techniques.data.dataset import ConversationDataset
from dl_techniques.errors import FusionError
from dl_techniques.layers.reparameterization import quantization_mode
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from dl_techniques.models.vlm.fast_vlm.weighted import (
    Weighted,
    measuring_dataset,
    refuse_arguments,
    training_dataset,
)


class TrainingMixin:
    """The training half of `FastVLMCausalLM`."""

    name: str
    backbone: FastVLMBackbone
    preprocessor: Any
    _compiled_form: dict[str, bool]

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> keras.callbacks.History:
        """Trains on conversations.

        Args:
            x: Prompts with `responses`, or conversations, in any form the preprocessor takes; a
                `keras.utils.PyDataset` of ready batches (`ConversationDataset`); without a
                preprocessor, arrays.
            y: Only for arrays.
            **kwargs: Of `keras.Model.fit`. With conversations, `validation_split` holds the last
                of them out, and `sample_weight` float[N] has one weight per conversation.

        Raises:
            PromptError: a conversation that cannot be trained on, or an argument that does not go
                with conversations (`y`, `class_weight`, ...).
        """
        x, kwargs = self._training_data(x, y, kwargs)
        # Past KerasHub's pipeline, which would want TensorFlow or Grain to map the preprocessor.
        return super(PipelineModel, self).fit(x, **kwargs)  # type: ignore[misc]

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Measures loss and metrics on data as in `fit`: means over the conversations."""
        kwargs.setdefault("shuffle", False)
        x, kwargs = self._training_data(x, y, kwargs, measuring_dataset)
        kwargs.pop("shuffle")
        return super(PipelineModel, self).evaluate(x, **kwargs)  # type: ignore[misc]

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Logits float[B, L, vocabulary] on data as in `fit`, B being their number."""
        kwargs.setdefault("shuffle", False)
        x, kwargs = self._training_data(x, None, kwargs)
        kwargs.pop("shuffle")
        logits = super(PipelineModel, self).predict(x, **kwargs)  # type: ignore[misc]
        # Copies that fill the last batch up are no answers.
        return logits[: len(x.records)] if isinstance(x, ConversationDataset) else logits

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Learns from one batch.

        Args:
            x: Conversations as `fit` takes them, or a ready batch's dict of arrays.
            y: Of a ready batch: int[B, L], or int[B, P] of its answers alone.
            sample_weight: Of a ready batch float[B, L] or float[B, P], of conversations float[B].
            **kwargs: Of `keras.Model.train_on_batch`.

        Raises:
            PromptError: as `fit`.
        """
        batch = self._one_batch(x, y, sample_weight, training_dataset)
        return super(PipelineModel, self).train_on_batch(*batch, **kwargs)  # type: ignore[misc]

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Measures one batch, given as to `train_on_batch`; the loss is that of `evaluate`."""
        batch = self._one_batch(x, y, sample_weight, measuring_dataset)
        return super(PipelineModel, self).test_on_batch(*batch, **kwargs)  # type: ignore[misc]

    def predict_on_batch(self, x: Any, **kwargs: Any) -> Any:
        """Logits float[B, L, vocabulary] of one batch, given as to `train_on_batch`."""
        inputs, _, _ = self._one_batch(x, None, None, training_dataset)
        return super(PipelineModel, self).predict_on_batch(inputs, **kwargs)  # type: ignore[misc]

    def _one_batch(self, x: Any, y: Any, sample_weight: Any, make: Any) -> tuple[Any, Any, Any]:
        """Arrays of one batch, whatever it was given as."""
        if isinstance(x, tuple) and y is None and self._is_ready(x[0]):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(x)
        if not self._is_ready(x):
            refuse_arguments(y, {})
            data = Weighted(to_records(x), sample_weight)
            x, y, sample_weight = make(data, self.preprocessor, len(data.records))[0]
        x, y, sample_weight = (
            None if part is None else keras.tree.map_structure(ops.convert_to_tensor, part)
            for part in (x, y, sample_weight)
        )
        return x, y, sample_weight

    def _training_data(
        self, x: Any, y: Any, kwargs: dict[str, Any], make: Any = training_dataset
    ) -> tuple[Any, dict[str, Any]]:
        """Batches of arrays, and the arguments that go with them."""
        if self._is_ready(x):
            return x, kwargs if y is None else {**kwargs, "y": y}
        refuse_arguments(y, kwargs)
        kwargs = dict(kwargs)
        size = kwargs.pop("batch_size", None) or 32
        data = Weighted(to_records(x), kwargs.pop("sample_weight", None))
        data, held_out = data.split(kwargs.pop("validation_split", None))
        validation = kwargs.get("validation_data")
        if validation is not None:
            validation = validation if self._is_ready(validation) else Weighted.of(validation)
        elif held_out is not None:
            validation = held_out
        if isinstance(validation, Weighted):
            rows = kwargs.pop("validation_batch_size", None) or size
            validation = measuring_dataset(validation, self.preprocessor, rows)
        if validation is not None:
            kwargs["validation_data"] = validation
        shuffle = bool(kwargs.get("shuffle", True))
        return make(data, self.preprocessor, size, shuffle), {**kwargs, "shuffle": False}

    def _is_ready(self, x: Any) -> bool:
        """Whether data are batches of arrays already, and not conversations."""
        arrays = isinstance(x, Mapping) and "token_ids" in x
        return self.preprocessor is None or arrays or isinstance(x, keras.utils.PyDataset)

    def _encoder_form(self) -> dict[str, bool]:
        """Which blocks of the vision encoder are fused."""
        form = getattr(self.backbone.vision_encoder, "form_state", dict)
        state: dict[str, bool] = form()
        return state

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any
    ) -> Any:
        """Logits float[B, L, vocabulary].

        Args:
            inputs: Dict as the backbone takes it. With `answer_positions` int[B, P] in it, as from
                `ConversationDataset(max_answer_tokens=P)`, logits are float[B, P, vocabulary] of
                these positions alone.
            training: Whether the model is being trained.
            mask: Of a Keras functional model's `call`.
            **kwargs: As `mask`.
        """
        alone = isinstance(inputs, Mapping) and "answer_positions" in inputs
        # A quantized table has no gradient in the functional model, which calls Keras' own layer.
        if not alone and quantization_mode(self.backbone.text_backbone.token_embedding) is None:
            return super().call(inputs, training=training, mask=mask, **kwargs)  # type: ignore[misc]
        arrays = dict(inputs)
        positions = arrays.pop("answer_positions", None)
        hidden = self.backbone(arrays, training=training)
        if positions is not None:
            positions = ops.cast(positions, "int32")
            hidden = ops.take_along_axis(hidden, positions[:, :, None], axis=1)
        return self.backbone.decoder.logits(hidden)

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the training function.

        Raises:
            FusionError: the vision encoder is to be trained but is folded, or changed its form
                after `compile()`. A frozen encoder may have any form.
        """
        encoder = self.backbone.vision_encoder
        if encoder.trainable_weights:
            advice = "or freeze the encoder (vision_encoder.trainable = False), then compile()"
            if self._encoder_form() != self._compiled_form:
                raise FusionError(
                    f"the vision encoder of {self.name} changed its form after compile(), and the "
                    f"optimizer may hold its old variables: compile() again, {advice}"
                )
            if getattr(encoder, "folded", False):
                raise FusionError(
                    f"the vision encoder of {self.name} is folded, which is for inference: call "
                    f"reset_reparameterization() {advice}"
                )
        return super().make_train_function(force)  # type: ignore[misc]
