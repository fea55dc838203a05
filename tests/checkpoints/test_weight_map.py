"""Tables of rules between files and variables."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.checkpoints.tensor_files import TensorInfo, open_tensors
from dl_techniques.checkpoints.tensor_writer import save_tensors
from dl_techniques.checkpoints.weight_map import (
    CHANNELS,
    CONV,
    DENSE,
    DEPTHWISE,
    POINTWISE,
    Rule,
    Transform,
    WeightMap,
    build_map,
    check_coverage,
    export_weights,
    load_weights,
)
from dl_techniques.errors import CheckpointError

SHAPES = {
    CONV: (3, 3, 2, 5),
    DEPTHWISE: (3, 3, 4, 2),
    POINTWISE: (4, 6),
    DENSE: (4, 6),
    CHANNELS: (7,),
}


@pytest.mark.parametrize("transform", SHAPES, ids=lambda t: t.name)
def test_transforms_go_back(transform: Transform) -> None:
    shape = SHAPES[transform]
    array = np.random.default_rng(0).normal(size=shape)
    stored = transform.to_source(array)
    assert stored.shape == transform.source_shape(shape)
    np.testing.assert_array_equal(transform.to_keras(stored, shape), array)


def test_depthwise_channels_of_a_multiplier_stay_together() -> None:
    stored = np.arange(8).reshape(8, 1, 1, 1)
    kernel = DEPTHWISE.to_keras(stored, (1, 1, 4, 2))
    np.testing.assert_array_equal(kernel[0, 0], [[0, 1], [2, 3], [4, 5], [6, 7]])


RULES = [
    Rule("stage_{s}/block_{b}/fc/kernel", "stages.{stage}.{b}.fc.weight", DENSE),
    Rule("stage_{s}/block_{b}/fc/bias", "stages.{stage}.{b}.fc.bias"),
    Rule("head/kernel", "head.weight", DENSE, optional=True),
]


def variables() -> list[tuple[str, keras.Variable]]:
    rng = np.random.default_rng(1)
    shapes = {"head/kernel": (2, 5)}
    for s in (1, 2):
        for b in (0, 1):
            shapes[f"stage_{s}/block_{b}/fc/kernel"] = (2, 3)
            shapes[f"stage_{s}/block_{b}/fc/bias"] = (3,)
    return [(p, keras.Variable(rng.normal(size=s).astype("float32"))) for p, s in shapes.items()]


def make_map() -> WeightMap:
    return build_map(
        variables(), RULES, lambda f: {"stage": str(int(f["s"]) - 1)} if "s" in f else {}
    )


def write(folder: Path, entries: WeightMap) -> None:
    arrays = dict(export_weights(entries))
    infos = {name: TensorInfo(a.shape, a.dtype) for name, a in arrays.items()}
    save_tensors(folder, infos, arrays.__getitem__)


def test_what_is_exported_is_loaded(tmp_path: Path) -> None:
    source, target = make_map(), make_map()
    write(tmp_path, source)
    for entry in target.values():
        entry.variable.assign(np.zeros(entry.variable.shape))
    with open_tensors(tmp_path) as store:
        assert "stages.1.0.fc.weight" in store and store["stages.1.0.fc.weight"].shape == (3, 2)
        check_coverage(store, target)
        load_weights(store, target)
    for name, entry in source.items():
        loaded = keras.ops.convert_to_numpy(target[name].variable.value)
        np.testing.assert_array_equal(loaded, keras.ops.convert_to_numpy(entry.variable.value))


def test_every_kind_of_misfit_is_listed() -> None:
    entries = make_map()
    infos = {n: TensorInfo(e.source_shape, np.dtype("float32")) for n, e in entries.items()}
    del infos["stages.0.0.fc.bias"]
    del infos["head.weight"]  # optional
    infos["stages.0.1.fc.weight"] = TensorInfo((9, 9), np.dtype("float32"))
    infos["surplus"] = TensorInfo((1,), np.dtype("float32"))
    infos["bn.num_batches_tracked"] = TensorInfo((), np.dtype("int64"))
    with pytest.raises(CheckpointError) as caught:
        check_coverage(infos, entries, ignore=[r".*num_batches_tracked"])
    message = str(caught.value)
    assert "1 missing: stages.0.0.fc.bias" in message
    assert "1 unused: surplus" in message
    assert "1 mis-shaped: stages.0.1.fc.weight (9, 9) instead of (3, 2)" in message


def test_only_names_with_the_prefix_count() -> None:
    entries = make_map()
    infos = {"x." + n: TensorInfo(e.source_shape, np.dtype("f4")) for n, e in entries.items()}
    check_coverage({**infos, "other": TensorInfo((1,), np.dtype("f4"))}, entries, prefix="x.")


def test_variable_without_rule_and_name_used_twice() -> None:
    variable = keras.Variable(np.zeros(3, "float32"))
    with pytest.raises(CheckpointError, match="no rule for the variable 'tail/bias'"):
        build_map([("tail/bias", variable)], RULES)
    rules = [Rule("{a}/bias", "bias")]
    with pytest.raises(CheckpointError, match="both come from 'bias'"):
        build_map([("x/bias", variable), ("y/bias", variable)], rules)
