"""LoRA of a decoder in PEFT's layout: `adapter_model.safetensors` and `adapter_config.json`.

PEFT counts a rank over all heads. Keras gives queries, keys and values matrices for each head,
which are the blocks of one matrix there: rank 8 of 14 heads is written as rank 112. What others
wrote has no such blocks, so it is merged into the kernels when it is read.

Reference: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.checkpoints.folders import replacing_folder
from dl_techniques.checkpoints.tensor_files import TensorInfo, open_tensors
from dl_techniques.checkpoints.tensor_writer import write_safetensors
from dl_techniques.compat.keras_layers import all_parts
from dl_techniques.errors import CheckpointError, TrainingError, shorten
from dl_techniques.training.fine_tune.trained_parts import as_numbers

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
MODULES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.o_proj",
    "feedforward_gate_dense": "mlp.gate_proj",
    "feedforward_intermediate_dense": "mlp.up_proj",
    "feedforward_output_dense": "mlp.down_proj",
}
"""Names of KerasHub's dense layers (Qwen, Llama) -> of transformers' modules."""
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.*)\.lora_(?P<side>[AB])(\.default)?\.weight"
)


def save_adapter(decoder: Any, folder: str | Path, base: str | None = None) -> None:
    """Writes the LoRA matrices of a decoder; the folder appears when it is whole.

    Args:
        decoder: a KerasHub backbone whose dense layers have LoRA, as `text_backbone`.
        folder: that PEFT reads; replaced if it exists.
        base: name of the model that the adapter belongs to, for PEFT.

    Raises:
        TrainingError: no layer has LoRA, or one that transformers' models have no module for.

    Example:
        >>> save_adapter(model.backbone.text_backbone, "my_adapter")  # doctest: +SKIP
    """
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for module, layer in dense_modules(decoder):
        if not getattr(layer, "lora_enabled", False):
            continue
        a, b, heads = _flat(layer)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = b
        name = re.escape(module.rsplit(".", 1)[1])
        ranks[name], alphas[name] = a.shape[0], float(layer.lora_alpha * heads)
    with_lora = sum(bool(getattr(x, "lora_enabled", False)) for x in all_parts(decoder))
    if not tensors or len(tensors) != 2 * with_lora:
        raise TrainingError(
            f"{decoder.name} has {with_lora} layers with LoRA, of which PEFT's layout knows "
            f"{len(tensors) // 2}: expected at least one, and all of them"
        )
    first = next(iter(ranks))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "rank_pattern": {rf".*\.{name}": rank for name, rank in ranks.items()},
        "alpha_pattern": {rf".*\.{name}": alpha for name, alpha in alphas.items()},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with replacing_folder(Path(folder)) as partial:
        infos = {n: TensorInfo(t.shape, np.dtype("float32")) for n, t in tensors.items()}
        write_safetensors(partial / TENSORS, infos, lambda name: tensors[name])
        (partial / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def merge_adapter(decoder: Any, folder: str | Path) -> int:
    """Adds an adapter in PEFT's layout to the kernels of a decoder.

    Args:
        decoder: a KerasHub backbone in floating point, without LoRA.
        folder: that PEFT or `save_adapter` wrote.

    Returns:
        How many kernels were changed.

    Raises:
        CheckpointError: no such folder, a damaged file, a kind of adapter that is not read, or one
            of another network; no kernel is changed then.
    """
    place = Path(folder)
    config = _config(place)
    kernels = dict(dense_modules(decoder))
    with open_tensors(place / TENSORS) as store:
        found = _pairs({name: store.read(name) for name in store}, place)
    deltas = {}
    for module, (a, b) in found.items():
        layer = kernels.get(module)
        size = None if layer is None else int(np.prod(layer.kernel.shape))
        if layer is None or a.shape[0] != b.shape[1] or a.shape[1] * b.shape[0] != size:
            raise CheckpointError(
                f"{shorten(place)}: {shorten(module)} is {a.shape} and {b.shape}, which fits no "
                f"dense layer of {decoder.name}: the adapter belongs to another network"
            )
        deltas[module] = _scale(config, module, a.shape[0]) * (b @ a)
    for module, delta in deltas.items():
        kernel = kernels[module].kernel
        kernel.assign(as_numbers(kernel) + delta.T.reshape(kernel.shape))
    return len(deltas)


def dense_modules(decoder: Any) -> Iterator[tuple[str, Any]]:
    """(path in transformers' model, dense layer) of a decoder."""
    for number, block in enumerate(decoder.transformer_layers):
        for layer in all_parts(block):
            if layer.name in MODULES and isinstance(
                layer, (keras.layers.Dense, keras.layers.EinsumDense)
            ):
                yield f"model.layers.{number}.{MODULES[layer.name]}", layer


def _flat(layer: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """A [rank, inputs] and B [outputs, rank] of a layer, and by what its rank was multiplied."""
    a, b = as_numbers(layer.lora_kernel_a), as_numbers(layer.lora_kernel_b)
    rank = b.shape[0]
    if layer.name in ("query", "key", "value"):  # a [D, H, r], b [r, E]
        heads = a.shape[1]
        blocks = np.kron(np.eye(heads, dtype="float32"), b.T)
        return a.transpose(1, 2, 0).reshape(heads * rank, -1).copy(), blocks, heads
    return a.reshape(-1, rank).T.copy(), b.T.copy(), 1


def _config(place: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shorten(place)} holds no {CONFIG} that can be read") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError(f"{shorten(place)}: expected an adapter with peft_type LORA")
    refused = [n for n in ("use_dora", "fan_in_fan_out", "modules_to_save") if config.get(n)]
    refused += ["bias"] if config.get("bias", "none") != "none" else []
    if refused:
        raise CheckpointError(
            f"{shorten(place)}: {', '.join(refused)} cannot be read; merge the adapter with PEFT"
        )
    return config


def _pairs(
    tensors: Mapping[str, np.ndarray], place: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module -> its A and B in float32."""
    sides: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        found = _KEY.fullmatch(name)
        if found is None or tensor.ndim != 2:
            raise CheckpointError(f"{shorten(place)}: {shorten(name)} is no matrix of LoRA")
        sides.setdefault(found["module"], {})[found["side"]] = tensor.astype("float32")
    single = [module for module, both in sides.items() if len(both) != 2]
    if single or not sides:
        raise CheckpointError(f"{shorten(place)}: A or B is missing of {single or 'all modules'}")
    return {module: (both["A"], both["B"]) for module, both in sides.items()}


def _scale(config: Mapping[str, Any], module: str, rank: int) -> np.float32:
    """By what the product of A and B counts."""
    alpha = float(config.get("lora_alpha", rank))
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(value)
            break
    return np.float32(alpha / (rank**0.5 if config.get("use_rslora") else rank))
