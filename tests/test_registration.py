"""`import dl_techniques` is enough for Keras to read its files, in either order of imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression.quantization_aware import quantization_aware
from dl_techniques.compression.static_int8 import quantize_static
from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.layers.activations import gelu
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.registration import CLASSES, FUNCTIONS, PACKAGE
from tests.helpers import numbers
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures
from tests.models.vlm.fast_vlm.small_model import make_model

ROOT = Path(__file__).resolve().parents[1]
ORDERS = {
    "keras first": "import keras\nimport dl_techniques\n",
    "keras second": (
        "import importlib.util, dl_techniques\n"
        "assert importlib.util.find_spec('keras') and importlib.util.find_spec('keras')\n"
        "import keras\n"
    ),
}
READ = """
import sys, numpy as np
assert PACKAGE + ".layers" not in sys.modules
x = np.load(sys.argv[1])
for file in sys.argv[2:]:
    model = keras.models.load_model(file)
    if hasattr(model, "backbone"):
        print(type(model).__module__, model.count_params())
        continue
    outputs = keras.ops.convert_to_numpy(model(x, training=False)).astype("float64")
    print(type(model).__module__, *np.ravel(outputs)[:3])
    if "plain" in file:
        model.save(file + ".again.keras")
        keras.models.load_model(file + ".again.keras")
"""


def plain_model() -> keras.Model:
    """A user's own, with a block and the activation of this package."""
    image = keras.Input((32, 32, 3))
    x = MobileOneBlock(4, 3, 2)(keras.layers.Dense(4, activation=gelu)(image))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Any]:
    """A file of every kind, and the model that is in it."""
    folder = tmp_path_factory.mktemp("files")
    float_network, static, weights = (make_smaller_network() for _ in range(3))
    quantize_static(static, pictures())
    quantize_weights(weights)
    layers = keras.layers
    dense = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    plain = keras.Sequential([keras.Input((32, 32, 3)), *dense])
    networks = {
        "float": float_network,
        "static": static,
        "weights": weights,
        "aware": quantization_aware(float_network),
        "plain": plain_model(),
        "plain_aware": quantization_aware(plain),
        "vlm": make_model(),
    }
    for name, network in networks.items():
        network.save(folder / f"{name}.keras")
    return {folder / f"{name}.keras": network for name, network in networks.items()}


@pytest.mark.once
@pytest.mark.parametrize("order", ORDERS)
def test_files_of_every_kind_are_read(order: str, files: dict[Path, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pictures())
    code = ORDERS[order] + READ.replace("PACKAGE", repr(PACKAGE))
    if order != "keras second":
        files = {file: network for file, network in files.items() if file.stem != "vlm"}
    command = [sys.executable, "-c", code, str(tmp_path / "x.npy"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith((PACKAGE, "keras"))]
    assert len(lines) == len(files)
    for line, network in zip(lines, files.values(), strict=True):
        module, *found = line.split()
        assert module == type(network).__module__
        if hasattr(network, "backbone"):
            assert int(found[0]) == network.count_params()
            continue
        expected = numbers(network(pictures(), training=False)).ravel()[:3]
        np.testing.assert_allclose([float(v) for v in found], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.once
def test_every_registered_name_is_known() -> None:
    """The table names the module of everything that is registered in the sources."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            marks = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
            if any("register_keras_serializable" in mark for mark in marks):
                module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                assert isinstance(node, ast.ClassDef | ast.FunctionDef)
                found.setdefault(module, set()).add(node.name)
    table: dict[str, set[str]] = {}
    for module, names in [*CLASSES.items(), *FUNCTIONS.items()]:
        table.setdefault(module, set()).update(names)
    assert found == table


@pytest.mark.once
def test_importing_a_module_of_the_package_first_works() -> None:
    """Each then imports Keras in the middle of its own import."""
    for module in (f"{PACKAGE}.kernels.torch_operators", f"{PACKAGE}.compression.static_int8"):
        code = f"import {module}, keras; from dl_techniques import FastVLM; print(FastVLM.__name__)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout.strip().endswith("FastVLM"), done.stderr
