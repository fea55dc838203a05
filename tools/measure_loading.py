"""How much memory loading a FastVLM takes, measured per backend on a generated checkpoint.

    python -m tools.measure_loading --size fastvlm_0.5b --folder FOLDER --backends torch jax

Writes sharded files in Apple's layout with random content (once; a folder that has them is used
again), then loads them in a fresh process per backend. The figure is the peak of the process's
memory above what it held before loading, over the bytes of the weights on disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

BLOCK = 1 << 20
SHARD_BYTES = 1_000_000_000


def peak_bytes() -> int:
    """The most memory that this process has held so far (Linux)."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """What it holds now."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def generate(size: str, folder: Path, shard_bytes: int = SHARD_BYTES, **overrides: Any) -> None:
    """Writes a checkpoint of a published size in Apple's layout, with random content.

    Args:
        size: a variant, e.g. `fastvlm_0.5b`.
        folder: where to.
        shard_bytes: size at which another shard is begun.
        **overrides: numbers of the variant that are to be others.
    """
    from dl_techniques.checkpoints.tensor_files import TensorInfo
    from dl_techniques.checkpoints.tensor_writer import save_tensors
    from dl_techniques.models.vlm.fast_vlm.network.variants import FastVLMVariant

    variant = FastVLMVariant.named(size).with_overrides(overrides)
    half = np.dtype(ml_dtypes.bfloat16)
    block = (np.random.default_rng(0).standard_normal(BLOCK) * 0.02).astype(half)
    infos = {name: TensorInfo(shape, half) for name, shape in shapes_of(variant).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(apple_config(variant)))
    save_tensors(folder, infos, lambda name: np.resize(block, infos[name].shape), shard_bytes)


def shapes_of(variant: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a size in Apple's layout; nothing is allocated for them."""
    from dl_techniques.checkpoints.fast_vlm.layouts import APPLE
    from dl_techniques.checkpoints.language import decoder_config
    from dl_techniques.models.vlm.fast_vlm.network.variants import build_variant
    from dl_techniques.runtime.lazy_build import without_values

    with without_values():
        backbone = build_variant(variant)
    entries = APPLE.weight_map(backbone, decoder_config(apple_config(variant)))
    return {name: entry.source_shape for name, entry in entries.items()}


def apple_config(variant: Any) -> dict[str, Any]:
    """`config.json` of a size."""
    numbers = dataclasses.asdict(variant.decoder)
    return {
        "model_type": "llava_qwen2",
        "vocab_size": numbers["vocabulary_size"],
        "hidden_size": numbers["hidden_dim"],
        "intermediate_size": numbers["intermediate_dim"],
        "num_hidden_layers": numbers["num_layers"],
        "num_attention_heads": numbers["num_query_heads"],
        "num_key_value_heads": numbers["num_key_value_heads"],
        "rms_norm_eps": numbers["layer_norm_epsilon"],
        "rope_theta": numbers["rope_max_wavelength"],
        "tie_word_embeddings": False,
        "mm_vision_tower": f"mobileclip_l_{variant.image_size}",
        "mm_hidden_size": 3072,
        "mm_projector_type": "mlp2x_gelu",
        "tokenizer_model_max_length": variant.sequence_length,
    }


def measure(folder: Path, dtype: str) -> dict[str, Any]:
    """Loads a folder in this process and says what it took."""
    import keras

    from dl_techniques import FastVLMBackbone
    from dl_techniques.checkpoints.fast_vlm import estimate

    plan = estimate(folder)  # also imports everything that loading needs
    before, start = resident_bytes(), time.perf_counter()
    backbone = FastVLMBackbone.from_preset(folder, dtype=dtype)
    taken = peak_bytes() - before
    return {
        "backend": keras.backend.backend(),
        "dtype": dtype,
        "parameters": backbone.count_params(),
        "stored_bytes": plan.stored_bytes,
        "peak_bytes": taken,
        "kept_bytes": resident_bytes() - before,
        "planned_peak_bytes": plan.peak_bytes[dtype],
        "ratio": round(taken / plan.stored_bytes, 3),
        "seconds": round(time.perf_counter() - start, 1),
    }


def measure_in_process(folder: Path, dtype: str, backend: str) -> dict[str, Any]:
    """`measure` in a fresh process of one backend."""
    command = [sys.executable, "-m", "tools.measure_loading", "--folder", str(folder), "--here"]
    command += ["--dtype", dtype]
    env = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Generates if needed, measures, prints one line a backend."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="fastvlm_0.5b")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--here", action="store_true", help="measure in this process, print JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.folder, options.dtype)))
        return
    if not (options.folder / "config.json").is_file():
        generate(options.size, options.folder)
    for backend in options.backends:
        print(json.dumps(measure_in_process(options.folder, options.dtype, backend)), flush=True)


if __name__ == "__main__":
    main()
