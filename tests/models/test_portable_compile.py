"""Files name optimizers by their public classes, whichever backend writes or reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compat.keras_models import undecayed
from dl_techniques.errors import TrainingError
from dl_techniques.models.portable_compile import BACKEND_MODULES, UNDECAYED, portable
from tests.models.vision.fast_vlm.small_network import make_smaller_network
from tests.models.vlm.fast_vlm.small_model import make_backbone, make_model

KEPT = Path(__file__).parents[1] / "kept"
OPTIMIZERS = ["Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "Nadam", "RMSprop", "SGD"]


def config_of(model: Any, folder: Path) -> str:
    """The text of the config in a model's file."""
    model.save(folder / "a.keras")
    with zipfile.ZipFile(folder / "a.keras") as file:
        return file.read("config.json").decode()


def document(backend: str, name: str = "SGD") -> dict[str, Any]:
    """An optimizer as Keras writes it on a backend."""
    module = f"{BACKEND_MODULES}{backend}.optimizers.{backend}_{name.lower()}"
    config = keras.optimizers.get(name).get_config()
    return {"module": module, "class_name": name, "config": config, "registered_name": name}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    optimizer = getattr(keras.optimizers, name)(0.25)
    written = portable(keras.saving.serialize_keras_object(optimizer))
    assert (written["module"], written["class_name"]) == ("keras.optimizers", name)
    again = keras.saving.deserialize_keras_object(written)
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()
    of_torch = document("torch", name)
    public = {**of_torch, "module": "keras.optimizers", "registered_name": None}
    assert portable(of_torch) == public


def test_inner_optimizers_and_what_stays() -> None:
    outer = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(1e-3))
    written = keras.saving.serialize_keras_object({"optimizer": outer, "loss": "mse"})
    before = json.dumps(written)
    assert BACKEND_MODULES not in json.dumps(portable(written))
    assert json.dumps(written) == before
    own = {"module": f"{BACKEND_MODULES}torch.other", "class_name": "Other", "config": {}}
    assert portable([own, 3]) == [own, 3]


def test_networks_and_whole_models(tmp_path: Path) -> None:
    network = make_smaller_network()
    network.compile(keras.optimizers.AdamW(1e-3), "mse")
    backbone = make_backbone()
    backbone.text_backbone.compile("adam", "mse")
    backbone.compile("sgd", "mse")
    for model in (network, backbone, make_model()):
        text = config_of(model, tmp_path)
        assert BACKEND_MODULES not in text and "keras.optimizers" in text
        again = keras.models.load_model(tmp_path / "a.keras")
        assert type(again.optimizer) is type(model.optimizer)


@pytest.mark.once
def test_files_of_torch_load_where_torch_is_missing(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
import keras, dl_techniques.compression, dl_techniques.models.vlm.fast_vlm
from tools.keep_files.reading import unpack
for name in ("magnitude_pruned", "vlm_compiled"):
    unpack(Path({str(KEPT)!r}) / "torch" / f"{{name}}.tar.xz", Path({str(tmp_path)!r}))
    model = keras.models.load_model(Path({str(tmp_path)!r}) / f"{{name}}.keras")
    print(name, type(model.optimizer).__module__, type(model.optimizer).__name__)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [
        *("magnitude_pruned", "keras.src.optimizers.adamw", "AdamW"),
        *("vlm_compiled", "keras.src.optimizers.adamw", "AdamW"),
    ]


@pytest.mark.parametrize("scaled", [False, True])
def test_what_is_not_decayed_is_remembered(scaled: bool, tmp_path: Path) -> None:
    network = make_smaller_network(num_classes=3)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    single = next(v for v in network.trainable_variables if "kernel" in v.path)
    optimizer.exclude_from_weight_decay([single], ["bias", "gamma"])
    network.compile(
        keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse",
        auto_scale_loss=False,
    )  # fmt: skip
    network.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    loaded = again.optimizer.inner_optimizer if scaled else again.optimizer
    pairs = zip(network.trainable_variables, again.trainable_variables, strict=True)
    kept = [(optimizer._use_weight_decay(a), loaded._use_weight_decay(b)) for a, b in pairs]
    assert all(before == after for before, after in kept) and (True, True) in kept
    assert sum(not before for before, _ in kept) > 3 and not optimizer._use_weight_decay(single)


def test_whole_models_remember_it_too(tmp_path: Path) -> None:
    model = make_model()
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
    model.compile(optimizer)
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    assert undecayed(again.optimizer)[0] == undecayed(optimizer)[0] is not None
    plain = make_model()
    plain.compile("adamw")
    assert UNDECAYED not in plain.get_compile_config()


@pytest.mark.parametrize("whole", [False, True])
def test_freezing_after_training_began_is_refused(whole: bool) -> None:
    if whole:
        model: Any = make_model()
        data: tuple[Any, ...] = ({"prompts": ["Why?"], "responses": ["a cube"]},)
        frozen = model.backbone.projector
    else:
        model = make_smaller_network(num_classes=3)
        data = (np.zeros((2, *model.image_shape), "float32"), np.zeros((2, 3), "float32"))
        frozen = model.stages[0]
    model.compile("sgd", "auto" if whole else "mse")
    model.fit(*data, verbose=0)
    model.fit(*data, verbose=0)
    frozen.trainable = False
    with pytest.raises(TrainingError, match=r"began training with \d+ .* call compile\(\) again"):
        model.fit(*data, verbose=0)
    model.compile("sgd", "auto" if whole else "mse")
    before = [np.array(keras.ops.convert_to_numpy(w)) for w in frozen.weights]
    model.fit(*data, verbose=0)
    after = [keras.ops.convert_to_numpy(w) for w in frozen.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
