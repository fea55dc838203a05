"""Our networks as timm's: `model.safetensors` and `config.json`, as its hub folders have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np

from dl_techniques.checkpoints.folders import replacing_folder
from dl_techniques.checkpoints.tensor_files import TensorInfo
from dl_techniques.checkpoints.tensor_writer import save_tensors
from dl_techniques.checkpoints.vision.efficientnet_lite import HEADS
from dl_techniques.checkpoints.vision.reading import network_map
from dl_techniques.checkpoints.vision.sources import timm_fields, timm_name
from dl_techniques.checkpoints.weight_map import Entry
from dl_techniques.errors import VariantError
from dl_techniques.models.vision.efficientnet_lite.model import EfficientNetLite
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne

Progress = Callable[[int], None]


def save_as_timm(
    network: FastVLM | MobileOne | EfficientNetLite,
    folder: str | Path,
    progress: Progress | None = None,
) -> None:
    """Writes a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` opens.

    The form stays. What timm calls `pretrained=True` takes training form alone: its reader mistakes
    fused names for Apple's. A fused folder is for transformers' timm wrapper (FastViT and MCi), or
    for `load_state_dict` of timm's network after `timm.utils.reparameterize_model`.

    Args:
        network: of a variant that timm has: fastvit_*, mci*, fastvithd, mobileone_*,
            efficientnet_lite*.
        folder: where to; replaced when all is written.
        progress: told the bytes of each array that was written.

    Raises:
        VariantError: timm has no such network.
        CheckpointError: the network is folded.
    """
    name = timm_name(variant_name(network))
    arrays = _arrays(network)
    config = json.dumps(timm_config(network, name), indent=2)
    with replacing_folder(Path(folder)) as place:
        infos = {key: info for key, (info, _) in arrays.items()}
        save_tensors(place, infos, lambda key: arrays[key][1](), progress=progress)
        (place / "config.json").write_text(config + "\n", encoding="utf-8")


def variant_name(network: FastVLM | MobileOne | EfficientNetLite) -> str:
    """The variant with a network's layers.

    Raises:
        VariantError: there is none.
    """
    config: Any = network.config
    same = [n for n, other in type(network).MODEL_VARIANTS.items() if other.same_network(config)]
    if not same:
        raise VariantError(
            f"{network.name} (dims {list(config.embed_dims)}, depths {list(config.depths)}) has "
            "the layers of no variant, and timm knows no others; use save_to_preset()"
        )
    return str(same[0])


def timm_config(network: FastVLM | MobileOne | EfficientNetLite, name: str) -> dict[str, Any]:
    """The document that timm reads."""
    classes = network.num_classes if network.include_top else 0
    fused_fast_vit = network.reparameterized and isinstance(network, FastVLM)
    stem, classifier = "stem", "head.fc"
    if isinstance(network, FastVLM):
        stem = "stem.0"
    elif isinstance(network, EfficientNetLite):
        stem, classifier = "conv_stem", HEADS["timm"]
    return {
        "architecture": name,
        "num_classes": classes,
        "num_features": network.feature_dim,
        **({"model_args": {"inference_mode": True}} if fused_fast_vit else {}),
        "pretrained_cfg": {
            "custom_load": False,
            **timm_fields(network.preprocessing),
            "num_classes": classes,
            "pool_size": None,
            "first_conv": stem,
            "classifier": classifier,
        },
    }


def _arrays(
    network: FastVLM | MobileOne | EfficientNetLite,
) -> dict[str, tuple[TensorInfo, Callable[[], np.ndarray]]]:
    """Name -> what will be written, and how to get it; with the counters that torch expects."""
    found: dict[str, tuple[TensorInfo, Callable[[], np.ndarray]]] = {}
    for name, entry in network_map(network, "timm").items():
        dtype = keras.backend.standardize_dtype(entry.variable.dtype)
        kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        found[name] = TensorInfo(entry.source_shape, kind), _reader(entry, kind)
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            found[counter] = TensorInfo((), np.dtype(np.int64)), lambda: np.zeros((), np.int64)
    return found


def _reader(entry: Entry, kind: np.dtype) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        values = keras.ops.convert_to_numpy(entry.variable.value)
        return np.asarray(entry.transform.to_source(values), dtype=kind, order="C")

    return read
