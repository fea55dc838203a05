"""The notebooks run, and their two forms say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

jupytext = pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`")
pytest.importorskip("nbclient", reason="needs the extra `notebooks`")

from tools.run_notebooks import FOLDER, execute, read_pair  # noqa: E402

pytestmark = pytest.mark.once

NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
MAX_BYTES = 1_500_000


def cells(notebook: Any) -> list[tuple[str, str]]:
    """Kind and text of every cell."""
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def outputs(notebook: Any) -> list[Any]:
    """All outputs of all cells."""
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def printed(notebook: Any) -> str:
    """What the cells wrote to stdout."""
    return "".join(out.text for out in outputs(notebook) if out.get("name") == "stdout")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small setting, drawn shapes, the shipped preset."""
    monkeypatch.setenv("DL_NOTEBOOK_SMALL", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling is most of the time
    monkeypatch.delenv("DL_NOTEBOOK_DATA", raising=False)
    monkeypatch.delenv("DL_NOTEBOOK_PRESET", raising=False)


def test_every_notebook_has_both_forms() -> None:
    assert NAMES
    assert NAMES == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_pair_is_equal(name: str) -> None:
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(stored)
    assert cells(stored) == cells(read_pair(name)), f"run: jupytext --sync notebooks/{name}.py"


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_clean(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    stored = nbformat.reads(text, as_version=4)
    assert not [out for out in outputs(stored) if out.output_type == "error"]
    assert not [out for out in outputs(stored) if out.get("name") == "stderr"]
    assert str(Path.home()) not in text


@pytest.mark.slow_on_jax
def test_backbone_runs(small: None) -> None:
    notebook = execute(read_pair("01_backbone"), timeout=600)
    pictures = [out for out in outputs(notebook) if "image/png" in out.get("data", {})]
    assert len(pictures) == 5
    text = printed(notebook)
    assert "loaded fused: True" in text and "fused: False, largest difference" in text
    changes = [float(line.split("change ")[1]) for line in text.splitlines() if "change " in line]
    assert len(changes) == 3 and max(changes) < 1e-4


def test_ask_a_picture_runs(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("keras_hub", reason="needs the extra `vlm`")
    from dl_techniques.models.presets.shipped import shipped_presets

    if "demo" not in shipped_presets():
        monkeypatch.setenv("DL_NOTEBOOK_PRESET", random_preset(tmp_path / "random"))
    notebook = execute(read_pair("02_ask_a_picture"), timeout=600)
    pictures = [out for out in outputs(notebook) if "image/png" in out.get("data", {})]
    assert len(pictures) == 5
    assert printed(notebook).count("model ") >= 3


def random_preset(folder: Path) -> str:
    """Until the trained preset is there, the same cells run on random weights."""
    from dl_techniques import FastVLM, FastVLMBackbone, FastVLMCausalLM
    from tests.models.vlm.fast_vlm.small_model import SIZE, make_decoder, make_preprocessor

    preprocessor = make_preprocessor()
    encoder = FastVLM(
        embed_dims=(8, 16, 32),
        depths=(1, 1, 1),
        num_heads=(1, 1, 1),
        mlp_ratio=2.0,
        include_top=False,
        input_shape=(SIZE, SIZE, 3),
    )
    decoder = make_decoder(vocabulary=preprocessor.tokenizer.vocabulary_size())
    FastVLMCausalLM(FastVLMBackbone(encoder, decoder), preprocessor).save_to_preset(folder)
    return str(folder)
