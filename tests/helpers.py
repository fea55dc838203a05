"""Random weights, plain NumPy references, and what every layer and every block must hold."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tools.random_weights import Array, randomize

# The largest difference over the largest value that rounding to float32 may make.
TOLERANCE = 1e-5


def numbers(tensor: Any) -> Array:
    """A tensor or variable as a float64 array."""
    tensor = keras.ops.cast(tensor, "float32") if not isinstance(tensor, np.ndarray) else tensor
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64")


def relative_difference(left: Any, right: Any) -> float:
    """max|left - right| over max|right|."""
    left, right = numbers(left), numbers(right)
    assert left.shape == right.shape, f"{left.shape} is not {right.shape}"
    assert np.isfinite(left).all() and np.isfinite(right).all()
    return float(np.max(np.abs(left - right)) / np.max(np.abs(right)))


def values(layer: Any) -> list[Array]:
    """Copies of all weights."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in layer.weights]


def random_array(*shape: int, seed: int = 7) -> Array:
    """float32[shape], uniform in [-1, 1): signs matter to activations."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def numpy_convolution(x: Array, kernel: Array, stride: int = 1, depthwise: bool = False) -> Array:
    """Convolution with `k // 2` zeros on each side, place by place, in float64."""
    size = kernel.shape[0]
    margin = size // 2
    padded = np.pad(x.astype("float64"), [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
    sum_of = "bijc,ijcm->bcm" if depthwise else "bijc,ijcm->bm"
    places = [
        np.einsum(sum_of, padded[:, r : r + size, c : c + size], kernel.astype("float64"))
        for r in rows
        for c in columns
    ]
    return np.stack(places, axis=1).reshape(x.shape[0], len(rows), len(columns), -1)


def rebuilt(layer: Any, shape: tuple[int | None, ...] | None = None, **changes: Any) -> Any:
    """A layer made from another's serialized form, built, with the same weights."""
    document = keras.saving.serialize_keras_object(layer)
    document["config"].update(changes)
    copy = keras.saving.deserialize_keras_object(document)
    if shape is not None and not copy.built:
        copy.build(shape)
    copy.set_weights(layer.get_weights())
    return copy


def check_layer(layer: Any, shape: tuple[int, ...], **call: Any) -> None:
    """Config round trip, output shape (known and unknown sides), mixed precision."""
    x = random_array(*shape)
    layer.build(shape)
    randomize(layer)
    expected = numbers(layer(x, **call))
    assert tuple(layer.compute_output_shape(shape)) == expected.shape
    unknown = layer.compute_output_shape((None, None, None, shape[-1]))
    assert tuple(unknown) == (None, None, None, expected.shape[-1])
    copy = rebuilt(layer, shape)
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(numbers(copy(x, **call)), expected)
    _check_mixed_precision(layer, shape, expected, call)


def _check_mixed_precision(
    layer: Any, shape: tuple[int, ...], expected: Array, call: dict[str, Any]
) -> None:
    mixed = rebuilt(layer, shape, dtype="mixed_bfloat16")
    outputs = mixed(random_array(*shape), **call)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {v.dtype for v in mixed.weights} <= {"float32"}
    assert relative_difference(outputs, expected) < 0.05


def check_forms(
    block: Any, shape: tuple[int, ...], fold: bool = False, trainable: bool = True
) -> None:
    """Everything that fusing (or folding) and going back must hold, on random weights.

    Args:
        block: a switchable layer or a container of such.
        shape: of its input.
        fold: take the deeper step.
        trainable: whether the fused form can be trained and brought back.
    """
    block.build(shape)
    randomize(block)
    branches, x = values(block), random_array(*shape)
    expected = numbers(block(x))
    block.reparameterize(fold=fold)
    check_fused(block, branches, x, expected)
    fused = numbers(block(x))
    loaded = rebuilt(block, shape)
    assert loaded.get_config() == block.get_config()
    np.testing.assert_array_equal(numbers(loaded(x)), fused)
    loaded.reset_reparameterization()
    assert [v.shape for v in loaded.weights] == [v.shape for v in branches]
    assert relative_difference(loaded(x), fused) < TOLERANCE
    block.reset_reparameterization()
    for now, before in zip(values(block), branches, strict=True):
        np.testing.assert_array_equal(now, before)
    np.testing.assert_array_equal(numbers(block(x)), expected)
    if trainable:
        check_trained_form_comes_back(block, x, fold)


def check_fused(block: Any, branches: list[Array], x: Array, expected: Array) -> None:
    """The fused block computes the same with fewer numbers; fusing it again changes nothing."""
    assert block.reparameterized
    assert len(block.weights) < len(branches) or block.count_params() <= sum(
        v.size for v in branches
    )
    assert relative_difference(block(x), expected) < TOLERANCE
    weights = list(block.weights)
    block.reparameterize(fold=block.folded)
    assert [id(v) for v in block.weights] == [id(v) for v in weights]
    check_torch_parameters(block)


def check_torch_parameters(layer: Any) -> None:
    """On torch, `named_parameters` lists exactly the weights that exist."""
    if keras.backend.backend() != "torch":
        return
    listed = {id(p) for _, p in layer.named_parameters()}
    assert listed == {id(v.value) for v in layer.variables}


def check_trained_form_comes_back(block: Any, x: Array, fold: bool) -> None:
    """Fuses, moves every fused weight as training would, and goes back."""
    block.reparameterize(fold=fold)
    shake(block)
    trained = numbers(block(x))
    block.reset_reparameterization()
    assert relative_difference(block(x), trained) < TOLERANCE
    block.reparameterize(fold=fold)
    assert relative_difference(block(x), trained) < TOLERANCE


def shake(layer: Any, amount: float = 0.05) -> None:
    """Moves every weight a little; variances stay positive."""
    rng = np.random.default_rng(3)
    for variable in layer.weights:
        noise = rng.normal(0, amount, tuple(variable.shape))
        variable.assign((numbers(variable) * (1 + amount) + np.abs(noise)).astype("float32"))
