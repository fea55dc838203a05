"""Which backend the command takes, and what it prepares for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dl_techniques.cli.backend import (
    ORDER,
    pick_backend,
    requested_backend,
)
from dl_techniques.errors import DLTechniquesError, MissingExtraError


def everything(module: str) -> bool:
    return True


def test_the_users_variable_wins(tmp_path: Path) -> None:
    for name in ORDER:
        environment = {"KERAS_BACKEND": name, "KERAS_HOME": str(tmp_path)}
        assert pick_backend(environment, everything) == name


def test_an_unknown_backend_is_named(tmp_path: Path) -> None:
    with pytest.raises(DLTechniquesError, match="'theano'.*jax, tensorflow, torch"):
        pick_backend({"KERAS_BACKEND": "theano"}, everything)


def test_a_wanted_backend_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'dl-techniques\[torch\]'"):
        pick_backend({"KERAS_BACKEND": "torch"}, lambda name: name != "torch")


def test_first_installed_in_order(tmp_path: Path) -> None:
    environment = {"KERAS_HOME": str(tmp_path)}
    assert pick_backend(environment, everything) == ORDER[0]
    assert pick_backend(environment, lambda name: name == ORDER[2]) == ORDER[2]
    with pytest.raises(MissingExtraError, match="no Keras backend is installed"):
        pick_backend(environment, lambda name: False)


@pytest.mark.parametrize(("named", "expected"), [("tensorflow", None), ("torch", "torch")])
def test_keras_json_counts_where_it_is_a_wish(
    tmp_path: Path, named: str, expected: str | None
) -> None:
    (tmp_path / "keras.json").write_text(json.dumps({"backend": named}))
    assert requested_backend({"KERAS_HOME": str(tmp_path)}) == expected


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_keras_json_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "keras.json").write_text(text)
    with pytest.raises(DLTechniquesError, match="not a valid Keras configuration"):
        requested_backend({"KERAS_HOME": str(tmp_path)})


def test_set_up_leaves_other_backends_out() -> None:
    """In a process of its own: the choice must be made before Keras is imported."""
    code = (
        "import sys; from dl_techniques.cli.backend import set_up_backend; "
        "assert 'keras' not in sys.modules; name = set_up_backend(); "
        "import keras; assert keras.backend.backend() == name == set_up_backend(); "
        "assert name == 'tensorflow' or not sys.modules.get('tensorflow'); print(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import keras

    assert done.stdout.strip() == keras.backend.backend()  # the suite sets KERAS_BACKEND


@pytest.mark.parametrize("plots", [False, True])
def test_matplotlib_is_there_where_plots_are_wanted(plots: bool) -> None:
    """In a process of its own, as above; Keras looks for it when it is imported."""
    code = (
        "import sys; from dl_techniques.cli.backend import set_up_backend; "
        f"set_up_backend(plots={plots}); import keras; "
        "print(sys.modules.get('matplotlib') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(plots)
