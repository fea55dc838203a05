"""The peers of each kind of work: what they are, what they need, and who makes them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

LIMITS = {"float32": 1e-3, "bfloat16": 0.25, "int8": 0.5}
"""Largest difference from the reference over the reference's largest value. A network of random
weights, hundreds of layers deep, amplifies rounding far more than a trained one."""


class Runner(Protocol):
    """A peer that has loaded its weights and its input."""

    def times(self) -> dict[str, float]:
        """Computes once; seconds by name."""

    def output(self) -> Any:
        """What it computes, as float32[...] for the comparison with the reference."""


@dataclass(frozen=True)
class Peer:
    """One way to compute.

    Args:
        name: on the command line.
        what: in the table.
        make: "module:class" of this package; called with the folder and `arguments`.
        modules: what has to be installed.
        precision: of the arithmetic, a key of `LIMITS`.
        backend: of Keras, where it is Keras.
        arguments: keywords for the class.
        devices: where it is measured unless peers are named.
    """

    name: str
    what: str
    make: str
    modules: tuple[str, ...]
    precision: str = "float32"
    backend: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu",)

    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [module for module in self.modules if find_spec(module) is None]

    def load(self, folder: Path) -> Runner:
        """The runner, in the process that is to compute."""
        module, _, name = self.make.partition(":")
        maker = getattr(importlib.import_module(f"tools.compare_peers.peers.{module}"), name)
        runner: Runner = maker(folder, **self.arguments)
        return runner


BOTH, CARD = ("cpu", "cuda"), ("cuda",)
KERAS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def _torch_peers() -> Iterator[Peer]:
    needs, make = ("torch", "timm"), "torch_peers:TorchRunner"
    yield Peer("torch_eager", "timm, fused", make, needs, devices=BOTH)
    yield Peer("torch_branched", "timm, not fused", make, needs, arguments={"fused": False})
    last = {"channels_last": True}
    yield Peer("torch_channels_last", "timm, fused, channels_last", make, needs, arguments=last)
    compiled = {"compiled": "default"}
    yield Peer("torch_compile", "timm, fused, torch.compile", make, needs, arguments=compiled)
    half = {"dtype": "bfloat16"}
    yield Peer("torch_bfloat16", "timm, fused", make, needs, "bfloat16", arguments=half)
    yield Peer(
        "torch_bfloat16_channels_last", "timm, fused, channels_last", make, needs, "bfloat16",
        arguments=half | last, devices=BOTH,
    )  # fmt: skip
    yield Peer(
        "torch_bfloat16_compile", "timm, fused, torch.compile", make, needs, "bfloat16",
        arguments=half | compiled,
    )  # fmt: skip
    for name, mode in (("compile", "default"), ("graphs", "reduce-overhead")):
        yield Peer(
            f"torch_bfloat16_channels_last_{name}", f"timm, fused, channels_last, {mode}", make,
            needs, "bfloat16", arguments=half | last | {"compiled": mode}, devices=CARD,
        )  # fmt: skip


def _keras_peers() -> Iterator[Peer]:
    for backend, name in KERAS.items():
        for form in ("folded", "fused"):
            suffix = "" if form == "folded" else f"_{form}"
            yield Peer(
                f"ours_{backend}{suffix}", f"ours, {form}, {name}", "keras_peers:KerasRunner",
                (backend,), backend=backend, arguments={"form": form},
            )  # fmt: skip
        yield Peer(
            f"ours_{backend}_bfloat16", f"ours, folded, {name}", "keras_peers:KerasRunner",
            (backend,), "bfloat16", backend, {"form": "folded", "dtype": "bfloat16"},
        )  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        suffix = "" if dtype == "float32" else f"_{dtype}"
        yield Peer(
            f"ours_torch{suffix}_static", f"ours, folded, PyTorch, products int8, rest {dtype}",
            "keras_peers:KerasRunner", ("torch",), "int8", "torch",
            {"form": "folded", "dtype": dtype, "static": True},
        )  # fmt: skip
    yield Peer(
        "ours_jax_library", "ours, folded, JAX, XLA's grouped convolution",
        "keras_peers:KerasRunner", ("jax",), backend="jax",
        arguments={"convolution": "library"},
    )  # fmt: skip


def _resident_peers() -> Iterator[Peer]:
    for name, what, arguments in (
        ("", "folded", {}),
        ("_fused", "fused", {"form": "fused"}),
        ("_shifts", "folded, shifted sums", {"convolution": "shifts"}),
    ):
        yield Peer(
            f"resident_jax{name}", f"ours, {what}, JAX, one function", "resident_jax:JaxRunner",
            ("jax",), "bfloat16", "jax", arguments, CARD,
        )  # fmt: skip
    for name, what, arguments in (
        ("", "folded", {}),
        ("_fused", "fused", {"form": "fused"}),
        ("_graphs", "folded, torch.compile, reduce-overhead", {"mode": "reduce-overhead"}),
    ):
        yield Peer(
            f"resident_torch{name}", f"ours, {what}, PyTorch, recorded",
            "resident_torch:RecordedRunner", ("torch",), "bfloat16", "torch", arguments, CARD,
        )  # fmt: skip


def _engine_peers() -> Iterator[Peer]:
    ours, theirs = ("tensorflow", "tf2onnx"), ("torch", "timm", "onnx")
    onnx, vino = "engine_peers:OnnxRunner", "engine_peers:OpenVinoRunner"
    lite = "engine_peers:LiteRunner"
    quantized = {"file": "ours_int8.onnx"}
    for name, what, make, module in (
        ("onnxruntime", "onnxruntime", onnx, "onnxruntime"),
        ("openvino", "OpenVINO", vino, "openvino"),
    ):
        file = {"file": "ours.onnx"}
        yield Peer(name, f"{what}, our file", make, (module, *ours), arguments=file)
        file = {"file": "timm.onnx"}
        yield Peer(f"{name}_timm", f"{what}, timm's file", make, (module, *theirs), arguments=file)
        yield Peer(
            f"{name}_int8", f"{what}, our file", make, (module, "onnxruntime", *ours), "int8",
            arguments=quantized,
        )  # fmt: skip
    for file, what, modules in (("ours", "our file", ours), ("timm", "timm's file", theirs)):
        yield Peer(
            "openvino_bfloat16" + ("" if file == "ours" else "_timm"), f"OpenVINO, {what}", vino,
            ("openvino", *modules), "bfloat16",
            arguments={"file": f"{file}.onnx", "precision": "bf16"},
        )  # fmt: skip
    needs = ("ai_edge_litert", "tensorflow")
    yield Peer("litert", "LiteRT, our file", lite, needs, arguments={"file": "ours.tflite"})
    file = {"file": "ours_int8.tflite"}
    yield Peer("litert_int8", "LiteRT, our file", lite, needs, "int8", arguments=file)
    file = {"file": "timm.tflite"}
    needs = ("ai_edge_litert", "litert_torch", "timm")
    yield Peer("litert_timm", "LiteRT, timm's file", lite, needs, arguments=file)


def _vlm_peers() -> Iterator[Peer]:
    needs, make = ("torch", "transformers"), "transformers_peers:TransformersRunner"
    for dtype in ("float32", "bfloat16"):
        name = f"transformers_{dtype}"
        yield Peer(
            name, "transformers", make, needs, dtype, arguments={"dtype": dtype}, devices=BOTH
        )
    yield Peer(
        "transformers_bfloat16_static", "transformers, static cache", make, needs, "bfloat16",
        arguments={"dtype": "bfloat16", "cache": "static"}, devices=CARD,
    )  # fmt: skip
    for backend, title in KERAS.items():
        for dtype in ("float32", "bfloat16"):
            name = f"ours_{backend}" + ("" if dtype == "float32" else f"_{dtype}")
            yield Peer(
                name, f"ours, {title}", "vlm_peers:OurRunner", (backend, "keras_hub"), dtype,
                backend, {"dtype": dtype},
                BOTH if dtype == "bfloat16" and backend != "tensorflow" else ("cpu",),
            )  # fmt: skip
            yield Peer(
                f"{name}_int8", f"ours, {title}, encoder {dtype}, decoder int8",
                "vlm_peers:OurRunner", (backend, "keras_hub"), "int8", backend,
                {"dtype": dtype, "quantize": "int8"},
            )  # fmt: skip
    yield Peer(
        "ours_torch_bfloat16_static", "ours, PyTorch, encoder static int8, decoder int8",
        "vlm_peers:OurRunner", ("torch", "keras_hub"), "int8", "torch",
        {"dtype": "bfloat16", "quantize": "int8", "static": True},
    )  # fmt: skip


PEERS: dict[str, dict[str, Peer]] = {
    "vision": {
        p.name: p for p in (*_torch_peers(), *_keras_peers(), *_resident_peers(), *_engine_peers())
    },
    "vlm": {p.name: p for p in _vlm_peers()},
}
BASELINE = {"vision": "torch_eager", "vlm": "transformers_float32"}
"""Everybody's results are compared with theirs, on every device."""
AGAINST = {
    "cpu": BASELINE,
    "cuda": {"vision": "torch_bfloat16_channels_last", "vlm": "transformers_bfloat16"},
}
"""Everybody's times are divided by theirs."""


def choose(
    work: str, names: Sequence[str] | None, device: str = "cpu", against: str | None = None
) -> list[Peer]:
    """The peers by name, or all that are measured on a device; the baseline comes first.

    Args:
        work: a key of `PEERS`.
        names: of peers.
        device: "cpu" or "cuda".
        against: one that is measured as well; that of `AGAINST` unless said.

    Raises:
        ValueError: an unknown name (the nearest is given).
    """
    known = PEERS[work]
    against = against or AGAINST[device][work]
    for name in (against, *(names or ())):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown peer {name!r}; {hint}")
    named = names or [name for name, peer in known.items() if device in peer.devices]
    wanted = dict.fromkeys([BASELINE[work], against, *named])
    return [known[name] for name in wanted]
