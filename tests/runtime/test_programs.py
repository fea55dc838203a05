"""Compiled programs that outlive their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from dl_techniques.runtime.programs import cache_folder, keep_compiled_programs, set_cache_variables

PROGRAM = """
import json, sys
import jax
counts = {"hits": 0, "misses": 0}
def count(event, **_):
    kind = event.rpartition("/cache_")[2]
    counts[kind] = counts.get(kind, 0) + 1
jax.monitoring.register_event_listener(count)
import numpy as np
jax.jit(lambda x: x + 1)(np.ones(3))  # JAX has found no folder before the call
import dl_techniques
folder = dl_techniques.keep_compiled_programs(sys.argv[1])
assert str(folder) == sys.argv[1], folder
import keras
if sys.argv[2] == "dense":
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Dense(4)])
else:
    network = dl_techniques.FastVLM.from_variant(sys.argv[2], input_shape=(32, 32, 3))
network.predict_on_batch(np.ones((1, 32, 32, 3), "float32"))
print(json.dumps(counts))
"""


def test_cache_folder(tmp_path: Path) -> None:
    given = {"XDG_CACHE_HOME": str(tmp_path)}
    assert cache_folder(given) == tmp_path / "dl_techniques"
    assert cache_folder({"LOCALAPPDATA": str(tmp_path)}, "win32").parent == tmp_path
    assert cache_folder({}, "darwin").parts[-3:] == ("Library", "Caches", "dl_techniques")
    assert cache_folder({}, "linux") == Path.home() / ".cache" / "dl_techniques"


def test_programs_go_where_the_user_said(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    set_cache_variables(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "dl_techniques" / "jax")
    environment = {"JAX_COMPILATION_CACHE_DIR": "mine"}
    set_cache_variables(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "mine"


@pytest.mark.skipif(keras.config.backend() == "jax", reason="JAX keeps its programs")
def test_other_backends_say_that_they_keep_nothing(tmp_path: Path) -> None:
    assert keep_compiled_programs(tmp_path / "programs") is None
    assert not (tmp_path / "programs").exists()


@pytest.mark.skipif(keras.config.backend() != "jax", reason="only JAX keeps programs")
@pytest.mark.parametrize("network", ["dense", pytest.param("nano", marks=pytest.mark.full)])
def test_a_second_process_compiles_nothing(network: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if "_CACHE_" not in k}

    def run() -> dict[str, int]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), network]
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return counts

    first = run()
    assert first["misses"] > 1
    programs = {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")}
    second = run()
    assert second["misses"] == 0 and second["hits"] >= first["misses"]
    assert programs == {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")}
