"""Which backend the package takes, and what a program that names none is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dl_techniques.backend import ORDER, choose_backend, pick_backend, requested_backend
from dl_techniques.errors import DLTechniquesError, MissingExtraError

pytestmark = pytest.mark.once
SAID = (
    "dl_techniques: KERAS_BACKEND is not set, so Keras runs on torch, the first installed backend"
)
# Ends a process where Keras would be imported: the choice must have been made there.
STOP = """
import os
class Stop:
    def find_spec(name, path=None, target=None):
        if name == "keras":
            print(os.environ.get("KERAS_BACKEND"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Stop)
"""
FIRST_NAMES = (
    "from dl_techniques import FastVLM",
    "from dl_techniques.data import ConversationDataset",
    "from dl_techniques.compression import prune_channels",
    "from dl_techniques.compression.channel_pruning import prune_channels",
    "from dl_techniques.export import export_model",
    "from dl_techniques.layers.mobile_one_block import MobileOneBlock",
)


def python(
    code: str, home: Path, hidden: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process that finds no `hidden` packages and no wish but `variables`."""
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(home), **variables}
    hide = f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
    command = [sys.executable, "-c", hide + code]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("first", FIRST_NAMES)
def test_the_choice_comes_before_keras(first: str, tmp_path: Path) -> None:
    done = python(f"{STOP}{first}; import keras", tmp_path, ("jax", "tensorflow"))
    assert done.stdout == "torch\n", done.stderr
    assert done.stderr.splitlines() == [SAID]


def test_the_first_name_chooses_an_installed_backend(tmp_path: Path) -> None:
    code = (
        f"{FIRST_NAMES[0]}\nimport keras, subprocess, dl_techniques\n"
        "print(keras.backend.backend())\ndl_techniques.MobileOne\n"
        "again = 'import dl_techniques; dl_techniques.backend.choose_backend()'\n"
        "print(subprocess.check_output([sys.executable, '-c', again], stderr=subprocess.STDOUT))"
    )
    done = python(code, tmp_path, ("jax", "tensorflow"))
    assert (done.returncode, done.stdout.split()) == (0, ["torch", "b''"]), done.stderr
    assert [line for line in done.stderr.splitlines() if "dl_techniques" in line] == [SAID]


def test_a_wish_is_kept_in_silence(tmp_path: Path) -> None:
    done = python(STOP + FIRST_NAMES[0], tmp_path, KERAS_BACKEND="torch")
    assert (done.stdout, done.stderr) == ("torch\n", "")
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    done = python(STOP + FIRST_NAMES[0], tmp_path)
    assert (done.stdout, done.stderr) == ("torch\n", "")


def test_keras_that_is_imported_keeps_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    choose_backend()
    assert keras.backend.backend() and "KERAS_BACKEND" not in os.environ


@pytest.mark.parametrize(
    ("hidden", "variables", "words"),
    [
        (ORDER, {}, "no Keras backend is installed; choose one of the extras"),
        (("jax",), {"KERAS_BACKEND": "jax"}, "'jax' is asked for but not installed: pip install"),
        ((), {"KERAS_BACKEND": "theano"}, "KERAS_BACKEND is 'theano'; expected one of"),
    ],
)
def test_what_cannot_be_is_one_line(
    hidden: tuple[str, ...], variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    done = python("from dl_techniques import FastVLM", tmp_path, hidden, **variables)
    assert words in done.stderr.splitlines()[-1] and "keras/" not in done.stderr


def test_an_import_of_keras_that_failed_says_what_to_set(tmp_path: Path) -> None:
    code = (
        "try:\n    import keras\nexcept ImportError as error:\n    print(error.name[:10])\n"
        "from dl_techniques import FastVLM"
    )
    done = python(code, tmp_path, ("jax", "tensorflow"))
    assert done.stdout == "tensorflow\n"
    last = done.stderr.splitlines()[-1]
    assert "KERAS_BACKEND=torch" in last and "before Keras is imported" in last


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
    with pytest.raises(MissingExtraError, match=r"pip install .*\[torch\]'"):
        pick_backend({"KERAS_BACKEND": "torch"}, lambda name: name != "torch")


def test_first_installed_in_order(tmp_path: Path) -> None:
    environment = {"KERAS_HOME": str(tmp_path)}
    assert pick_backend(environment, everything) == ORDER[0]
    assert pick_backend(environment, lambda name: name == ORDER[2]) == ORDER[2]
    with pytest.raises(
        MissingExtraError,
        match="no Keras backend is installed.*jax, tensorflow, torch.*pip install",
    ):
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
