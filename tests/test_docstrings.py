"""The examples of docstrings run as they stand there: the package's on every backend."""

from __future__ import annotations

import ast
import doctest
import importlib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def modules_with_examples(folder: str) -> list[str]:
    """Modules of a folder whose docstrings have lines that are not skipped."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
        texts = [ast.get_docstring(node) or "" for node in nodes]
        lines = [
            line for text in texts for line in text.splitlines() if line.startswith((" ", ">"))
        ]
        if any(">>> " in line and "+SKIP" not in line for line in lines):
            name = path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".")
            found.append(name.removesuffix(".__init__"))
    return found


PACKAGE = modules_with_examples("dl_techniques")
ELSEWHERE = [*modules_with_examples("recipes"), *modules_with_examples("tools")]


def test_examples_are_found() -> None:
    assert len(PACKAGE) > 80 and len(ELSEWHERE) > 10


@pytest.mark.parametrize(
    "name", [*PACKAGE, *(pytest.param(name, marks=pytest.mark.once) for name in ELSEWHERE)]
)
def test_the_examples_of_a_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert not (error.name or "").startswith(("dl_techniques", "recipes", "tools"))
        pytest.skip(f"needs {error.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = doctest.testmod(module, optionflags=FLAGS)
    assert result.attempted > 0 and result.failed == 0
