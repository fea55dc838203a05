"""Distillation: a student learns from labels, from a teacher's logits and from its feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dl_techniques.errors import CompressionError
from dl_techniques.models.portable_compile import PortableCompile
from dl_techniques.models.vision.switchable_model import SwitchableModel
from dl_techniques.runtime.traced_once import TracedOnce
from dl_techniques.typing import Tensor

Feature = int | str
Pairs = Sequence[tuple[Feature, Feature]]


def distiller(
    student: keras.Model,
    teacher: keras.Model,
    *,
    temperature: float = 4.0,
    alpha: float = 0.5,
    features: bool | Pairs = False,
    feature_weight: float = 1.0,
) -> FeatureDistiller:
    """A model that trains `student` under `teacher`: compile it with a loss and call `fit`.

    The loss is (1 - alpha) * (loss on labels) + alpha * (T^2 * KL of softened logits +
    feature_weight * mean of the features' relative squared differences).

    The teacher is frozen (`trainable = False`, as Keras' Distiller leaves it) and runs in
    inference mode; fuse it first (`reparameterize()`), it then answers faster. A teacher with other
    pixel statistics, another range (`include_preprocessing`) or another fixed picture size gets the
    student's pictures converted, where both have `preprocessing`. After `fit` the student is an
    ordinary model; the distiller and its projections can be thrown away.

    Args:
        student: in training form, with logits as outputs.
        teacher: any Keras model of pictures with the same classes, logits as outputs.
        temperature: T that both logits are divided by. Defaults to 4.
        alpha: weight of the teacher, in [0, 1]. Defaults to 0.5.
        features: `True`: the maps of all stages that both have; or pairs (student's, teacher's) of
            indices of `extract_features` (0 is the stem) or of layer names. The student's channels
            are brought to the teacher's by trained 1x1 projections. Defaults to `False`.
        feature_weight: of the features beside the logits. Defaults to 1.

    Raises:
        CompressionError: outputs that are no logits or do not fit, or no such feature.

    Example:
        >>> from dl_techniques import FastVLM
        >>> size = {"num_classes": 10, "input_shape": (32, 32, 3)}
        >>> student = FastVLM.from_variant("nano", **size)
        >>> pair = distiller(student, FastVLM.from_variant("tiny", **size), features=True)
        >>> pair.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531;
    Romero et al., "FitNets", arXiv:1412.6550, section 2.2 (projected features).
    """
    for role, model in (("student", student), ("teacher", teacher)):
        _check_logits(role, model)
    if not 0 <= alpha <= 1 or temperature <= 0 or feature_weight < 0:
        raise CompressionError(
            f"alpha is {alpha}, temperature {temperature}, feature_weight {feature_weight}; "
            "expected 0 <= alpha <= 1, temperature > 0 and feature_weight >= 0"
        )
    pairs = _named_pairs(student, teacher, features)
    # The loss as an object: from its name, Keras 3.15 makes a function that takes no softmax.
    softened = keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())
    mapped = [
        keras.distillation.FeatureDistillation(relative_squared_error, t, s) for s, t in pairs
    ]
    losses = [softened, *mapped]
    weights = [1.0, *(feature_weight / len(pairs) for _ in pairs)]
    try:
        return FeatureDistiller(teacher, student, losses, weights, 1.0 - alpha)
    except ValueError as error:
        raise CompressionError(
            f"{teacher.name} cannot teach {student.name}: {' '.join(str(error).split())}"
        ) from error


@keras.saving.register_keras_serializable(package="dl_techniques")
def relative_squared_error(target: Any, output: Any) -> Any:
    """Mean of (output - target)^2 over the mean of target^2: a scalar without a scale."""
    target = ops.stop_gradient(ops.cast(target, "float32"))
    difference = ops.cast(output, "float32") - target
    return ops.mean(ops.square(difference)) / (ops.mean(ops.square(target)) + 1e-6)


@keras.saving.register_keras_serializable(package="dl_techniques")
class FeatureDistiller(PortableCompile, TracedOnce, keras.distillation.Distiller):
    """Keras' Distiller, with features of different widths and one pass of the student a step.

    Keras' own runs the student a second time, in training mode, to get at its features (while
    evaluating as well, which moves the statistics of its norms). Here one pass gives both.

    Args:
        teacher: is frozen.
        student: functional if there are feature losses.
        distillation_losses: as Keras' Distiller has them.
        distillation_loss_weights: one a loss.
        student_loss_weight: of the loss on labels.
        name: str.
        **kwargs: of a Keras model: dtype, trainable.
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: Sequence[Any],
        distillation_loss_weights: Sequence[float],
        student_loss_weight: float = 0.5,
        name: str = "distiller",
        **kwargs: Any,
    ) -> None:
        self._view = TeacherView.between(student, teacher)
        super().__init__(
            teacher, student, list(distillation_losses), list(distillation_loss_weights),
            student_loss_weight, name=name, **kwargs,
        )  # fmt: skip
        self._latest = _Latest()

    def compile(
        self, optimizer: str | keras.optimizers.Optimizer = "adam", loss: Any = None, **kwargs: Any
    ) -> None:
        """As Keras' Distiller.

        Args:
            optimizer: of the student and the projections.
            loss: on labels.
            **kwargs: `metrics`, and what `keras.Model.compile` takes.
        """
        super().compile(optimizer, loss, **kwargs)
        self._label_loss = loss

    def get_compile_config(self) -> dict[str, Any] | None:
        """Arguments of `compile`; Keras' Distiller leaves the loss out."""
        config: dict[str, Any] | None = super().get_compile_config()
        if config is None:
            return None
        return {**config, "loss": keras.saving.serialize_keras_object(self._label_loss)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as a saved distiller was, so that its training can be resumed."""
        super().compile_from_config(config)
        self.optimizer.build(self.trainable_variables)

    def _validate_input_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        if self._view is None or self._view.size is None:
            super()._validate_input_compatibility(teacher, student)

    def _create_multi_feature_extractors(self) -> None:
        """Both networks with all their outputs; the student's maps as wide as the teacher's."""
        losses = [d for d in self.distillation_losses if getattr(d, "student_layer_name", None)]
        self._teacher_feature_extractor = self._student_feature_extractor = None
        if not losses:
            return
        taught: dict[str, Any] = {"final_output": self.teacher.output}
        learned: dict[str, Any] = {"final_output": self.student.output}
        for loss in losses:
            source = self.student.get_layer(loss.student_layer_name).output
            target = self.teacher.get_layer(loss.teacher_layer_name).output
            target = _same_places(target, source, loss.student_layer_name)
            taught[loss.teacher_layer_name] = target
            learned[loss.student_layer_name] = _projected(source, target, loss.student_layer_name)
        self._teacher_feature_extractor = keras.Model(_inputs(self.teacher), taught)
        self._student_feature_extractor = keras.Model(_inputs(self.student), learned)

    def call(self, inputs: Tensor, training: bool | None = None, **kwargs: Any) -> Any:
        """The student's outputs; its features wait for `compute_loss`."""
        if self._student_feature_extractor is None:
            return self.student(inputs, training=training, **kwargs)
        features = self._student_feature_extractor(inputs, training=training)
        self._latest.features = features
        return features["final_output"]

    def _extract_all_student_features(self, x: Tensor, y_pred: Tensor) -> Any:
        features, self._latest.features = self._latest.features, None
        return {"final_output": y_pred} if features is None else features

    def _extract_all_teacher_features(self, x: Tensor) -> Any:
        return super()._extract_all_teacher_features(x if self._view is None else self._view(x))


class _Latest:
    """Holds the features of the step in progress; no part of the model's state."""

    features: dict[str, Any] | None = None


class TeacherView:
    """The student's pictures as the teacher wants them: its pixel statistics, its size.

    Args:
        scale: of each colour.
        shift: of each colour.
        size: (height, width) of the teacher, or `None` for the student's.
    """

    def __init__(
        self, scale: Sequence[float], shift: Sequence[float], size: tuple[int, int] | None
    ) -> None:
        self.scale, self.shift, self.size = list(scale), list(shift), size

    @classmethod
    def between(cls, student: keras.Model, teacher: keras.Model) -> TeacherView | None:
        """What has to be converted; `None` where nothing has."""
        scale, shift = [1.0] * 3, [0.0] * 3
        own, theirs = (_colours(model) for model in (student, teacher))
        if own is not None and theirs is not None:
            colours = list(zip(*own, *theirs, strict=True))
            scale = [std / other for _, std, _, other in colours]
            shift = [(mean - other) / std for mean, _, other, std in colours]
        size = _picture_size(teacher)
        size = None if size is None or size == _picture_size(student) else size
        if size is None and scale == [1.0] * 3 and shift == [0.0] * 3:
            return None
        return cls(scale, shift, size)

    def __call__(self, pictures: Any) -> Any:
        """float[B, H, W, 3] -> float[B, H', W', 3]."""
        dtype = pictures.dtype
        if self.size is not None:
            pictures = ops.image.resize(
                pictures, self.size, antialias=True, data_format="channels_last"
            )
        scale, shift = (ops.convert_to_tensor(v, dtype) for v in (self.scale, self.shift))
        return pictures * scale + shift


def _colours(model: keras.Model) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and deviation, on the scale [0, 1], of what a network is called with."""
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None:
        return None
    if getattr(model, "include_preprocessing", False):
        return [0.0] * 3, [1 / 255] * 3
    return preprocessing.mean, preprocessing.std


def _inputs(model: keras.Model) -> Any:
    """A model's input as it is called with: a lone one is no list."""
    return model.inputs[0] if len(model.inputs) == 1 else model.inputs


def _picture_size(model: keras.Model) -> tuple[int, int] | None:
    """(height, width) of the pictures that a model is fixed to."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:3]:
        return None
    return (int(shape[1]), int(shape[2]))


def _same_places(target: Any, source: Any, name: str) -> Any:
    """The teacher's map, resized to the places of the student's where they differ."""
    theirs, own = target.shape[1:-1], source.shape[1:-1]
    if theirs == own:
        return target
    if None in own or None in theirs or len(own) != 2 or len(theirs) != 2:
        raise CompressionError(
            f"feature {name!r} has the places {own} and the teacher's has {theirs}; "
            "give both networks a fixed input_shape"
        )
    return ops.image.resize(target, own, antialias=True, data_format="channels_last")


def _projected(source: Any, target: Any, name: str) -> Any:
    """A trained 1x1 projection of the student's map to the teacher's channels."""
    return keras.layers.Dense(target.shape[-1], name=f"project_{name}", dtype="float32")(source)


def _named_pairs(
    student: keras.Model, teacher: keras.Model, features: bool | Pairs
) -> list[tuple[str, str]]:
    """Names of (student's, teacher's) layers."""
    if features is False:
        return []
    if features is True:
        most = min(len(_feature_layers(student)), len(_feature_layers(teacher)))
        features = [(i, i) for i in range(1, most)]
    return [(_layer_name(student, own), _layer_name(teacher, theirs)) for own, theirs in features]


def _feature_layers(model: keras.Model) -> list[Any]:
    """The layers whose outputs `extract_features` gives."""
    if not isinstance(model, SwitchableModel):
        raise CompressionError(
            f"{model.name} has no extract_features; name the layers as pairs, "
            "features=[(student's, teacher's)]"
        )
    network: Any = model
    return [network.stem, *network.stages]


def _layer_name(model: keras.Model, feature: Feature) -> str:
    if isinstance(feature, str):
        names = [layer.name for layer in model.layers]
    else:
        names = [layer.name for layer in _feature_layers(model)]
        if 0 <= feature < len(names):
            return str(names[feature])
    if feature not in names:
        raise CompressionError(f"{model.name} has no feature {feature!r}; it has {names}")
    return str(feature)


def _check_logits(role: str, model: keras.Model) -> None:
    """Refuses what gives no logits; a softmax of a softmax would teach nothing."""
    if not isinstance(model, keras.Model):
        raise CompressionError(f"the {role} is a {type(model).__name__}, expected a keras.Model")
    last = model.layers[-1] if model.layers else None
    activation = getattr(last, "activation", None)
    named = getattr(activation, "__name__", "")
    if isinstance(last, keras.layers.Softmax) or named in ("softmax", "sigmoid"):
        raise CompressionError(
            f"the {role} {model.name} ends in a {named or 'softmax'}; distillation needs logits, "
            "build it with classifier_activation=None"
        )
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and len(shape) != 2:
        raise CompressionError(
            f"the {role} {model.name} gives {shape}, expected logits [batch, classes]; "
            "build it with its classifier"
        )
