"""PyTorch's hook into every operator that it runs. Needed for recordings."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

__all__ = ["TorchDispatchMode", "tree_map_only"]
