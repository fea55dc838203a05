"""Private names of Keras that this package touches: each test says what breaks without one."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from dl_techniques.compat import keras_layers, keras_models, keras_variables
from tests.helpers import numbers


def network() -> keras.Model:
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2, name="second")(keras.layers.Dense(3, name="first")(inputs))
    return keras.Model(inputs, outputs)


class Pair(keras.layers.Layer):
    """Two dense layers, one of them inside the other's list twice."""

    def __init__(self) -> None:
        super().__init__(name="pair")
        self.first, self.second = keras.layers.Dense(2, name="a"), keras.layers.Dense(2, name="b")
        self.again = self.first

    def build(self, shape: tuple[int, ...]) -> None:
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return self.first(x) + self.second(x)


def test_parts_are_found_once_and_in_order() -> None:
    """Without: fusing, quantizing and pruning find no layers."""
    pair = Pair()
    assert [part.name for part in keras_layers.parts_of(pair)] == ["a", "b"]
    keras_layers.sort_parts(pair, lambda part: -ord(part.name))
    assert [part.name for part in keras_layers.parts_of(pair)] == ["b", "a"]
    names = [part.name for part in keras_layers.all_parts(network(), include_self=True)]
    assert {"first", "second"} < set(names) and len(names) == 4


def test_paths_of_parts() -> None:
    """Without: patterns such as `skip` find nothing, and quantized networks have wrong configs."""
    inputs = keras.Input((2,))
    outer = keras.Model(inputs, Pair()(inputs))
    paths = [path for path, _ in keras_layers.named_parts(outer)]
    assert paths[-3:] == ["pair", "pair/a", "pair/b"]


def test_a_built_layer_gains_and_loses_parts() -> None:
    """Without: no block can change its form."""
    pair = Pair()
    pair.build((None, 3))
    with pytest.raises(ValueError):
        pair.third = keras.layers.Dense(2)
    with keras_layers.unlocked(pair):
        keras_layers.drop_part(pair, "second")
        with keras_layers.name_scope_of(pair):
            pair.third = keras.layers.Dense(2, name="c")
            pair.third.build((None, 3))
    assert pair.third.kernel.path == "pair/c/kernel"
    assert [part.name for part in keras_layers.parts_of(pair)] == ["a", "c"]
    with pytest.raises(ValueError):
        pair.fourth = keras.layers.Dense(2)


def test_names_that_keras_made() -> None:
    """Without: files of frozen networks name their layers by a counter of the process."""
    for _ in range(2):
        dense = keras.layers.Dense(2)
    assert keras_layers.has_automatic_name(dense) and keras_layers.without_number(dense) == "dense"
    assert not keras_layers.has_automatic_name(keras.layers.Dense(2, name="other"))


def test_rules_of_quantized_layers() -> None:
    """Without: quantized networks are saved without the rule that makes them anew."""
    dense = keras.layers.Dense(4)
    dense.build((None, 4))
    assert keras_layers.quantization_config(dense) is None
    dense.quantize("int8")
    assert keras_layers.quantization_config(dense) is not None
    assert keras_layers.quantization_config(keras.layers.ReLU()) is None


def test_functional_models_are_told_from_others() -> None:
    """Without: quantization-aware training would copy a model that cannot be cloned."""

    class Own(keras.Model):
        """A model of its own code."""

    assert keras_models.is_functional(network()) and not keras_models.is_functional(Own())
    assert keras_models.is_functional(keras.Sequential([keras.layers.Dense(1)]))


def test_weights_are_there_while_a_model_trains() -> None:
    """Without: pruning on JAX looks at the weights from before training."""
    seen: list[float] = []

    class Look(keras.callbacks.Callback):
        """Notes a weight after each batch."""

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            keras_models.fetch_state(self.model)
            seen.append(float(numbers(self.model.trainable_variables[0]).sum()))

    model = network()
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    x = np.ones((4, 4), "float32")
    model.fit(x, x[:, :2] + 1, batch_size=2, epochs=1, verbose=0, callbacks=[Look()])
    assert len(set(seen)) == 2


def test_what_weight_decay_leaves_alone() -> None:
    """Without: a model that was loaded decays its norms and biases."""
    model, optimizer = network(), keras.optimizers.AdamW()
    assert keras_models.undecayed(optimizer) == (None, set())
    chosen = model.trainable_variables[0]
    optimizer.exclude_from_weight_decay([chosen], ["bias"])
    keys = {keras_models.key_of(optimizer, chosen)}
    assert keras_models.undecayed(optimizer) == ("bias", keys)


def test_a_variable_is_forgotten() -> None:
    """Without: float kernels stay beside the integers that replace them."""
    dense = keras.layers.Dense(2)
    dense.build((None, 3))
    with keras_layers.unlocked(dense):
        keras_layers.forget_variable(dense, dense.bias)
    assert len(dense.weights) == 1


def test_variables_stay_in_the_list_that_they_were_made_for() -> None:
    """Without: what is frozen is trained again after loading."""
    norm = keras.layers.BatchNormalization()
    norm.build((None, 3))
    norm.trainable = False
    made, others = keras_layers.variables_as_made(norm)
    assert [len(made), len(others)] == [2, 2] and not made[0].trainable


def test_torch_parameters_follow() -> None:
    """Without: PyTorch trains and saves parameters that no layer has any more."""
    pair = Pair()
    pair.build((None, 3))
    keras_layers.list_torch_parameters(pair)
    if keras.config.backend() == "torch":
        with keras_layers.unlocked(pair):
            keras_layers.drop_part(pair, "second")
        keras_layers.list_torch_parameters(pair)
        assert len(list(pair.parameters())) == len(pair.weights) == 2


def test_stateless_scopes_are_noticed() -> None:
    """Without: a network fused inside a compiled function silently loses its weights."""
    assert not keras_layers.in_stateless_scope()
    with keras.StatelessScope():
        assert keras_layers.in_stateless_scope()


def test_integers_of_quantized_layers() -> None:
    """Without: int8 goes through Keras' products of int32, an order of magnitude slower."""
    dense, table = keras.layers.Dense(2), keras.layers.ReversibleEmbedding(5, 3)
    for layer in (dense, table):
        layer.build((None, 3))
        layer.quantize("int8")
    kernel = keras_layers.integer_kernel(dense)
    assert kernel is not None and kernel.dtype == "int8"
    assert keras_layers.table_of(table).dtype == "int8"
    assert keras_layers.integer_kernel(keras.layers.Dropout(0.1)) is None


def test_variables_without_values() -> None:
    """Without: no checkpoint of other people loads, or only after making random numbers for it."""
    found: list[keras.Variable] = []
    with keras_variables.made_without_values(found.extend):
        dense = keras.layers.Dense(2)
        dense.build((None, 3))
    assert [v.path for v in found] == [dense.kernel.path, dense.bias.path]
    assert not keras_variables.has_value(dense.kernel)
    keras_variables.initialize(dense.bias)
    keras_variables.initialize_with(dense.kernel, keras.ops.ones((3, 2)))
    assert keras_variables.has_value(dense.kernel) and keras_variables.has_value(dense.bias)
    np.testing.assert_array_equal(numbers(dense(np.ones((1, 3), "float32"))), [[3, 3]])
    with keras.StatelessScope():  # fills what an earlier scope left behind
        pass
    np.testing.assert_array_equal(numbers(dense.kernel), np.ones((3, 2)))


def test_optimizers_number_their_variables() -> None:
    """Without: pruning by gradients cannot tell whose gradient it sees."""
    optimizer, model = keras.optimizers.SGD(), network()
    optimizer.build(model.trainable_variables)
    numbered = [keras_models.number_of(optimizer, v) for v in model.trainable_variables]
    assert numbered == [0, 1, 2, 3]


def test_training_is_built_from_shapes() -> None:
    """Without: `fit` on TensorFlow traces its first step twice."""
    if keras.config.backend() != "tensorflow":
        pytest.skip("asked on TensorFlow alone")
    import tensorflow as tf

    model = network()
    model.compile("sgd", "mse")
    assert not keras_models.has_strategy(model)
    shapes = tuple(tf.TensorSpec((2, size), tf.float32) for size in (4, 2))
    keras_models.build_for_training(model, shapes)
    assert model.optimizer.built


def test_the_distiller_asks_its_hooks() -> None:
    """Without: distilling features, or towers of another input size, does what Keras' own does."""
    for name in (
        "_create_multi_feature_extractors",
        "_extract_all_student_features",
        "_extract_all_teacher_features",
        "_validate_input_compatibility",
    ):
        assert callable(getattr(keras.distillation.Distiller, name))


def test_models_are_cloned_by_a_walk_along_their_graph() -> None:
    """Without: `clone_model` of a whole model unties its embedding in silence."""
    names = inspect.signature(network()._run_through_graph).parameters
    assert list(names)[:2] == ["inputs", "operation_fn"]
