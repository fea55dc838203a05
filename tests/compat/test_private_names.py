"""Private names of other packages are touched in `compat` alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[2] / "dl_techniques"
ALLOWED = {
    "_SubParsersAction": "of argparse, the only name of what add_subparsers() returns",
    "_tab": "of every class that the flatbuffers compiler writes",
    # Overridden, not called: tests/compat holds that the base classes have them.
    "_extract_all_teacher_features": "a hook of keras.distillation.Distiller",
    "_validate_input_compatibility": "a hook of keras.distillation.Distiller",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def our_own(tree: ast.Module) -> Iterator[str]:
    """Private names that a file defines or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
            yield str(getattr(node.args[1], "value", ""))


def test_private_names_stand_in_compat() -> None:
    elsewhere = [(path, tree) for path, tree in trees() if "compat" not in path.parts]
    ours = {name for _, tree in elsewhere for name in our_own(tree)}
    touched = []
    for path, tree in elsewhere:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                if node.attr not in ours and node.attr not in ALLOWED:
                    touched.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[0] != ROOT.name and any(p == "src" or is_private(p) for p in parts):
                    touched.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.module}")
    assert touched == []
