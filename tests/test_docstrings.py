"""The examples of docstrings run as they stand there, on every backend."""

from __future__ import annotations

import ast
import doctest
import importlib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dl_techniques"


def modules_with_examples() -> list[str]:
    """Modules whose docstrings have lines that are not skipped."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
        texts = [ast.get_docstring(node) or "" for node in nodes]
        lines = [
            line for text in texts for line in text.splitlines() if line.startswith((" ", ">"))
        ]
        if any(">>> " in line and "+SKIP" not in line for line in lines):
            name = path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".")
            found.append(name.removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert not (error.name or "").startswith("dl_techniques")
        pytest.skip(f"needs {error.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        result = doctest.testmod(module, optionflags=flags)
    assert result.failed == 0
