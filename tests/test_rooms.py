"""Rooms stand on floors: imports lead down, in code and in strings, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dl_techniques"
FLOORS = (
    ("errors", "typing", "version"),
    ("text",),
    ("compat",),
    ("backend",),
    ("kernels",),
    ("layers", "data"),
    ("runtime",),
    ("models",),
    ("checkpoints",),
    ("hosts",),
    ("loading",),
    ("evaluation",),
    ("training",),
    ("export",),
    ("compression",),
    ("serving",),
    ("cli",),
    ("__main__", "registration"),
)
"""From the ground up. A room uses those below it; rooms of one floor do not use each other."""

LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
DOOR = "dl_techniques.models.presets.readers"
"""The one door that leads up: the table of the readers of other people's weights."""

MOST_FILES = 12
MORE_FILES = {"layers": "one block a file"}
"""Folders that may hold more than `MOST_FILES`, and why."""


def module_of(path: Path) -> str:
    """`dl_techniques/data/images.py` -> `dl_techniques.data.images`."""
    name = path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def named_in(tree: ast.AST) -> Iterator[str]:
    """Every module of the package that a file imports or names in a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in FILES and node.value != PACKAGE:
                yield node.value


USES = {
    name: {used for used in named_in(ast.parse(path.read_text(encoding="utf-8"))) if used in FILES}
    for name, path in FILES.items()
}


def room_of(module: str) -> str:
    """`dl_techniques.data.images` -> `data`; the package itself has no room."""
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in FILES} - {""} <= set(LEVEL)


def test_imports_lead_down() -> None:
    up = [
        f"{name} -> {used}"
        for name, others in USES.items()
        for used in sorted(others)
        if room_of(name) and room_of(used) and name != DOOR
        if room_of(name) != room_of(used) and LEVEL[room_of(used)] >= LEVEL[room_of(name)]
    ]
    assert up == []


def circles(uses: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach each other (Tarjan's algorithm), larger than one."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for used in uses[name]:
            if used not in number:
                visit(used)
                low[name] = min(low[name], low[used])
            elif used in stack:
                low[name] = min(low[name], number[used])
        if low[name] == number[name]:
            start = stack.index(name)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for name in uses:
        if name not in number:
            visit(name)
    return found


def test_no_imports_in_a_circle() -> None:
    # What a room's `__init__` hands on is for its visitors; the door's strings lead up on purpose.
    plain = {
        name: {used for used in others if used != PACKAGE}
        for name, others in USES.items()
        if name not in (PACKAGE, DOOR)
    }
    plain = {name: others & set(plain) for name, others in plain.items()}
    assert circles(plain) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_rooms_are_small() -> None:
    crowded = {}
    for folder in {path.parent for path in FILES.values()}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        name = folder.relative_to(ROOT / PACKAGE).as_posix()
        if len(files) > MOST_FILES and name not in MORE_FILES:
            crowded[name] = len(files)
    assert crowded == {}


def told_by_name(tree: ast.AST) -> Iterator[int]:
    """Lines where the name of an object's class decides something."""
    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            asked = [node.subject]
        elif isinstance(node, ast.Subscript):  # a table by names
            asked = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get"):
            asked = node.args[:1]
        for part in (part for each in asked for part in ast.walk(each)):
            if isinstance(part, ast.Attribute) and part.attr in ("__name__", "__qualname__"):
                owner = ast.unparse(part.value)
                if owner.startswith("type(") or owner.endswith("__class__"):
                    yield node.lineno


MAY_HAVE_ATTRIBUTES = {
    "dl_techniques.evaluation.report": "the system may not tell how many cores are free",
    "dl_techniques.models.vlm.fast_vlm.answer.requests": "tf.data, which is not imported for it",
    "dl_techniques.data.images": "any array or open file is a picture",
    "dl_techniques.data.pixels": "tensors of PyTorch, which is not imported for it",
}
"""Files that test objects of others for an attribute, and why; `compat` may."""


def attributes_tested(tree: ast.AST) -> bool:
    """Whether a file calls `hasattr`."""
    return any(isinstance(node, ast.Name) and node.id == "hasattr" for node in ast.walk(tree))


def test_nothing_is_told_by_the_name_of_its_class() -> None:
    example = "if type(x).__name__ == 'A' or x.__class__.__name__ in names: pass"
    assert len(list(told_by_name(ast.parse(example)))) == 2
    assert not list(told_by_name(ast.parse("print(f'a {type(x).__name__}')")))
    outside = [path for name, path in FILES.items() if room_of(name) != "compat"]
    outside += [path for room in ("tools", "recipes") for path in (ROOT / room).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in outside
        for line in told_by_name(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_few_files_test_for_attributes() -> None:
    asking = {
        name
        for name, path in FILES.items()
        if attributes_tested(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {name for name in asking if room_of(name) != "compat"} == set(MAY_HAVE_ATTRIBUTES)


def test_tensors_and_shapes_are_defined_once() -> None:
    names = ("Shape", "Tensor")
    defining = [
        name
        for name, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names)
        or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in names and node.value)
        or (isinstance(node, ast.ClassDef) and node.name in names)
    ]
    assert set(defining) == {f"{PACKAGE}.typing"}


MAY_NAME_BACKENDS = ("kernels", "runtime", "compat", "backend", "training", "hosts", "cli")
"""Rooms that may ask which backend computes; `training` for distribution."""
REPORT_THE_BACKEND = {"dl_techniques.evaluation.report", "dl_techniques.evaluation.speed"}
"""They tell a reader what was measured."""


def asks_for_backend(tree: ast.AST) -> bool:
    """Whether a file calls Keras' `backend()`."""
    calls = (ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call))
    return any(call.endswith(("config.backend", "backend.backend")) for call in calls)


def test_few_rooms_ask_which_backend_it_is() -> None:
    asking = [
        name
        for name, path in FILES.items()
        if asks_for_backend(ast.parse(path.read_text(encoding="utf-8")))
    ]
    # The writers of export need the backend that their format is sound on.
    elsewhere = [name for name in asking if room_of(name) not in (*MAY_NAME_BACKENDS, "export")]
    assert set(elsewhere) <= REPORT_THE_BACKEND and asking
