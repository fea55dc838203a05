"""One run of a function on PyTorch as a graph of its operators, which can be run again.

`make_fx` of PyTorch gives the same graph, but converts every tensor to a fake one and notes the
stack at every operator: 3.8 s for FastViTHD at 256 px, which encodes a picture in 0.17 s. Here the
operators are noted as they are dispatched, in 0.2 s.

Reference: Reed et al., "torch.fx", arXiv:2112.08429; `torch.utils._python_dispatch`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from dl_techniques.compat.torch_dispatch import TorchDispatchMode, tree_map_only

_DEPENDS_ON_NUMBERS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class NotReplayableError(Exception):
    """A function looked at the numbers of its tensors, which may be others next time."""


def record_graph(function: Callable[..., Any], args: Any) -> tuple[Callable[..., Any], Any]:
    """Runs a function once and notes its operators.

    Args:
        function: takes nested tensors and returns nested tensors.
        args: its arguments.

    Returns:
        A function of the same arguments that calls the same operators on the same variables
        (tensors that are neither arguments nor made from them stay what they were), and what the
        function gave this time.

    Raises:
        NotReplayableError: operators depend on numbers that may change.
    """
    inputs = keras.tree.flatten(args)
    with _Recorder(inputs) as recorder:
        outputs = function(*args)
    graph = recorder.finish(keras.tree.flatten(outputs))

    def replay(*given: Any) -> Any:
        return keras.tree.pack_sequence_as(outputs_like, graph(*keras.tree.flatten(given)))

    outputs_like = keras.tree.map_structure(lambda _: None, outputs)  # holds no memory
    return replay, outputs


class _Recorder(TorchDispatchMode):
    """Notes every operator while it is entered.

    Args:
        inputs: the tensors that a later run gets others for.
    """

    def __init__(self, inputs: Sequence[Any]) -> None:
        super().__init__()
        self._root, self._graph = torch.nn.Module(), torch.fx.Graph()
        self._nodes = WeakTensorKeyDictionary()
        self._changing: set[torch.fx.Node] = set()
        self._held = 0
        for i, tensor in enumerate(inputs):
            node = self._graph.placeholder(f"input_{i}")
            self._changing.add(node)
            if isinstance(tensor, torch.Tensor):
                self._nodes[tensor] = node

    def finish(self, outputs: Sequence[Any]) -> torch.fx.GraphModule:
        """The graph, which takes and gives flat lists."""
        self._graph.output([self._noted(leaf) for leaf in outputs])
        self._graph.eliminate_dead_code()
        return torch.fx.GraphModule(self._root, self._graph)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operator and notes it."""
        kwargs = kwargs or {}
        given = args
        if func is torch.ops.aten.lift_fresh.default:
            # A literal of `torch.tensor` may be written to: every run takes a copy of its own.
            func, given = torch.ops.aten.lift_fresh_copy.default, (args[0].clone(),)
        noted = tree_map_only(torch.Tensor, self._noted, (given, kwargs))
        outputs = func(*args, **kwargs)
        node = self._graph.call_function(func, *noted)
        if any(source in self._changing for source in node.all_input_nodes):
            self._changing.add(node)
            if _DEPENDS_ON_NUMBERS.intersection(func.tags):
                raise NotReplayableError(f"{func} depends on numbers that may change")
        self._note(outputs, node)
        return outputs

    def _noted(self, leaf: Any) -> Any:
        """The node of a tensor; of one that comes from outside, an attribute."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if leaf not in self._nodes:
            name = f"held_{self._held}"
            self._held += 1
            setattr(self._root, name, leaf)
            self._nodes[leaf] = self._graph.get_attr(name)
            if isinstance(leaf, torch.nn.Parameter):
                self._changing.add(self._nodes[leaf])
        return self._nodes[leaf]

    def _note(self, outputs: Any, node: torch.fx.Node) -> None:
        """Remembers which tensors an operator gave."""
        if isinstance(outputs, torch.Tensor):
            self._nodes[outputs] = node
        elif isinstance(outputs, (tuple, list)):
            for i, output in enumerate(outputs):
                if isinstance(output, torch.Tensor):
                    item = self._graph.call_function(operator.getitem, (node, i))
                    if node in self._changing:
                        self._changing.add(item)
                    self._nodes[output] = item
