"""The peers on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tools.compare_peers.gpu.settings import DTYPE
from tools.compare_peers.peers import Peer

OURS = "ours"
"""How the names of our own peers begin."""
EXTRA = ("torch_eager_nchw", "ours_jax_fused", "ours_torch_fused")
"""Measured only where they are named."""


def _peer(
    name: str, what: str, make: str, modules: Sequence[str], backend: str, **arguments: Any
) -> Peer:
    return Peer(name, what, f"gpu.{make}", tuple(modules), DTYPE, backend, arguments)


def _encoder_peers() -> Iterator[Peer]:
    make, needs = "timm_runner:TimmRunner", ["torch", "timm"]
    last = "timm, fused, channels_last"
    yield _peer("torch_eager", last, make, needs, "torch", reference=True)
    graphs = {"mode": "reduce-overhead"}
    for name, mode in (("torch_compile", "default"), ("torch_compile_graphs", "reduce-overhead")):
        yield _peer(name, f"{last}, torch.compile, {mode}", make, needs, "torch", mode=mode)
    yield _peer("torch_eager_nchw", "timm, fused", make, needs, "torch", channels_last=False)
    make, needs = "our_runners:OurJaxRunner", ["jax"]
    yield _peer("ours_jax", "ours, folded, JAX", make, needs, "jax")
    yield _peer("ours_jax_fused", "ours, fused, JAX", make, needs, "jax", form="fused")
    shifted = "ours, folded, JAX, shifted sums"
    yield _peer("ours_jax_shifts", shifted, make, needs, "jax", shifts=True)
    make, needs = "our_torch_runner:OurTorchRunner", ["torch"]
    yield _peer("ours_torch", "ours, folded, PyTorch", make, needs, "torch")
    yield _peer("ours_torch_fused", "ours, fused, PyTorch", make, needs, "torch", form="fused")
    compiled = "ours, folded, PyTorch, torch.compile, reduce-overhead"
    yield _peer("ours_torch_compile", compiled, make, needs, "torch", **graphs)


def _vlm_peers() -> Iterator[Peer]:
    make, needs = "transformers_runner:TransformersRunner", ["torch", "timm", "transformers"]
    yield _peer("transformers", "transformers", make, needs, "torch", reference=True)
    static = "transformers, static cache"
    yield _peer("transformers_static", static, make, needs, "torch", cache="static")
    make = "vlm_runners:OurRunner"
    for backend, title in (("jax", "JAX"), ("torch", "PyTorch")):
        needs = [backend, "keras_hub"]
        yield _peer(f"ours_{backend}", f"ours, {title}", make, needs, backend)
    shifted = "ours, JAX, shifted sums"
    yield _peer("ours_jax_shifts", shifted, make, ["jax", "keras_hub"], "jax", shifts=True)


PEERS: dict[str, dict[str, Peer]] = {
    "encoder": {peer.name: peer for peer in _encoder_peers()},
    "vlm": {peer.name: peer for peer in _vlm_peers()},
}
"""By kind of work; the first of each is the baseline."""


def choose(work: str, names: Sequence[str] | None) -> list[Peer]:
    """The peers by name, the baseline first.

    Raises:
        ValueError: no kind of work has a peer of that name.
    """
    known = {name for table in PEERS.values() for name in table}
    if unknown := set(names or ()) - known:
        raise ValueError(f"unknown peers {sorted(unknown)}; known: {', '.join(sorted(known))}")
    baseline, *others = PEERS[work].values()
    wanted = [p for p in others if (p.name in names if names else p.name not in EXTRA)]
    return [baseline, *wanted]
