"""How much each channel of a network matters: by its weights, or by what the loss loses.

Both look at the fused network, in which a BatchNorm's scale is part of the weights, and both take
all weights together that one channel would take along, over all layers of its set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from dl_techniques.compat.keras_layers import all_parts
from dl_techniques.compat.keras_models import number_of
from dl_techniques.compression.channel_map import channel_axes
from dl_techniques.errors import CompressionError
from dl_techniques.layers.fusion import Array, as_float64
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.typing import Tensor

KINDS = ("l1", "taylor")
Scores = dict[str, Array]


def channel_importance(
    model: FastVLM,
    kind: str = "l1",
    data: Any = None,
    loss: Any = None,
    max_batches: int = 16,
) -> Scores:
    """A number for each channel of each set of `channel_map`; larger matters more.

    Args:
        model: in any form; it stays as it is.
        kind: "l1": mean size of a channel's weights, each layer's divided by its mean over the
            channels, averaged over the layers of the set. "taylor": squared first-order change of
            the loss if all of a channel's weights were zero, averaged over batches.
        data: for "taylor": `(pictures, labels)` arrays, or batches of such, as `fit` takes them.
        loss: for "taylor": a Keras loss. Defaults to cross-entropy.
        max_batches: of `data`, the most that are looked at. Defaults to 16.

    Returns:
        Set name -> float64[channels]. An attention head counts as a whole: its channels share
        one number.

    Raises:
        CompressionError: an unknown kind, "taylor" without data, or weights that are no FastVLM's.

    Example:
        >>> channel_importance(FastVLM.from_variant("nano"))["width_0"].shape
        (24,)

    Reference: Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710 (l1); Fang et
    al., "DepGraph", arXiv:2301.12900, section 3.3 (sums over a set); Molchanov et al., "Importance
    Estimation for Neural Network Pruning", arXiv:1906.10771, equations 6 and 8 (taylor).
    """
    if kind not in KINDS:
        raise CompressionError(f"importance is {kind!r}; use one of {', '.join(KINDS)}")
    channel_axes(model)  # refuses what is no plain FastVLM
    if kind == "l1":
        return _l1(model)
    if data is None:
        raise CompressionError(
            'importance "taylor" needs data=(pictures, labels) to see what the loss loses; '
            'give some, or use "l1"'
        )
    return _taylor(model, data, loss, max_batches)


def copy_of(model: FastVLM) -> FastVLM:
    """The same network in the same form, without optimizer."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _l1(model: FastVLM) -> Scores:
    fused = copy_of(model)
    fused.reparameterize(fold=True)
    sizes: dict[str, list[Array]] = {}
    for variable, axes in channel_axes(fused):
        for axis, label in enumerate(axes) if len(axes) > 1 else ():
            if label is not None:
                sizes.setdefault(label, []).append(_relative_size(as_float64(variable), axis))
    scores = {label: np.mean(found, axis=0) for label, found in sizes.items()}
    return _whole_heads(model, scores)


def _relative_size(array: Array, axis: int) -> Array:
    """Mean |w| of each place along an axis, over the mean of all."""
    size = np.abs(array).mean(axis=tuple(i for i in range(array.ndim) if i != axis))
    return size / max(float(size.mean()), 1e-30)


def _whole_heads(model: FastVLM, scores: Scores) -> Scores:
    """Gives all channels of an attention head the head's sum."""
    heads = {f"{i}_{b}": s.num_heads for i, s in enumerate(model.stages) for b in range(s.depth)}
    whole = dict(scores)
    for label, own in scores.items():
        if label.startswith("attention_"):
            place = label.removeprefix("attention_")
            channels = own + scores[f"qkv_{place}"].reshape(3, -1).sum(0)
            by_head = channels.reshape(heads[place], -1)
            whole[label] = np.repeat(by_head.sum(1), by_head.shape[1])
    return whole


def _taylor(model: FastVLM, data: Any, loss: Any, max_batches: int) -> Scores:
    probe, recorder = copy_of(model), GradientRecorder()
    if any(switch.is_fold and switch.inference_form for _, switch in probe.switches()):
        probe.reset_reparameterization()  # a folded network cannot be trained
    probe.reparameterize()
    probe.trainable = True  # what is frozen has an importance too
    for layer in all_parts(probe):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # statistics of training, not of these batches
    total: Scores = {}
    count = 0
    for pictures, labels in _batches(data, max_batches):
        if not count:
            chosen = loss if loss is not None else _cross_entropy(model, labels)
            probe.compile(recorder, chosen, auto_scale_loss=False)
        probe.train_on_batch(pictures, labels)
        change = _whole_heads(model, _change_of_loss(probe, recorder))
        total = {label: total.get(label, 0.0) + value**2 for label, value in change.items()}
        count += 1
    if not count:
        raise CompressionError("the data for the importance holds no batch; give some pictures")
    return {label: value / count for label, value in total.items()}


def _change_of_loss(probe: FastVLM, recorder: GradientRecorder) -> Scores:
    """Sum of weight times gradient over all weights of a channel, for each channel."""
    gradients = {id(v): g for v, g in recorder.recorded(probe.trainable_variables)}
    change: Scores = {}
    for variable, axes in channel_axes(probe):
        if id(variable) in gradients:
            product = as_float64(variable) * gradients[id(variable)]
            for axis, label in enumerate(axes):
                if label is not None:
                    others = tuple(i for i in range(product.ndim) if i != axis)
                    change[label] = change.get(label, 0.0) + product.sum(axis=others)
    return change


def _cross_entropy(model: FastVLM, labels: Any) -> Any:
    logits = model.classifier_activation in (None, "linear")
    if len(np.shape(labels)) > 1:
        return keras.losses.CategoricalCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def _batches(data: Any, most: int, size: int = 32) -> Iterator[tuple[Any, Any]]:
    """Batches of pictures and labels, from arrays or from whatever `fit` takes."""
    if isinstance(data, tuple) and len(data) == 2:
        starts = range(0, min(len(data[0]), most * size), size)
        batches: Iterable[Any] = ((data[0][i : i + size], data[1][i : i + size]) for i in starts)
    elif isinstance(data, keras.utils.PyDataset):
        batches = (data[i] for i in range(min(most, len(data))))
    else:
        batches = data
    for _, batch in zip(range(most), batches, strict=False):
        yield batch[0], batch[1]


class GradientRecorder(keras.optimizers.Optimizer):
    """An optimizer that changes nothing and remembers the last gradients.

    With it `train_on_batch` gives gradients on every backend.
    """

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0, name="gradient_recorder")

    def build(self, variables: list[Any]) -> None:
        """Makes room for one gradient a variable."""
        if self.built:
            return
        super().build(variables)
        self._seen = [self.add_variable_from_reference(v, name="gradient") for v in variables]

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Any) -> None:
        """Keeps the gradient."""
        seen = self._seen[number_of(self, variable)]
        self.assign(seen, keras.ops.cast(gradient, seen.dtype))

    def recorded(self, variables: list[Any]) -> list[tuple[Any, Array]]:
        """Each variable with its last gradient, float64 of its shape."""
        return [(v, as_float64(self._seen[number_of(self, v)])) for v in variables]
