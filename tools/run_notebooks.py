"""Makes `notebooks/NAME.ipynb` from `notebooks/NAME.py`, runs it, and keeps the outputs.

Usage:
    KERAS_BACKEND=jax python -m tools.run_notebooks [NAME ...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def read_pair(name: str) -> Any:
    """Returns the notebook that the text `NAME.py` spells, without outputs."""
    import jupytext

    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"  # random ones would change at every run
    return notebook


def execute(notebook: Any, timeout: int = 3600) -> Any:
    """Runs a notebook in the folder `notebooks` with this process's environment.

    Args:
        notebook: of `read_pair`; its outputs are filled in.
        timeout: seconds that one cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    paths = [str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    client = NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": FOLDER}})
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def move_warnings(notebook: Any) -> None:
    """Prints what the cells wrote to stderr, and leaves it out of the notebook.

    It is about the machine that ran them: missing widgets, absent accelerators.
    """
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        for output in [out for out in outputs if out.get("name") == "stderr"]:
            print(output.text, file=sys.stderr)
            outputs.remove(output)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    import nbformat

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 01_backbone; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the .ipynb are written")
    options = parser.parse_args(arguments)
    for name in options.names or sorted(path.stem for path in FOLDER.glob("*.py")):
        notebook = execute(read_pair(name))
        move_warnings(notebook)
        target = options.out / f"{name}.ipynb"
        nbformat.write(notebook, target)
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
