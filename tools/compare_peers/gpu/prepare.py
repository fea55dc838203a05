"""Writes random weights, once for all shapes.

Run as `python -m tools.compare_peers.gpu.prepare FOLDER` in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.compare_peers.job import Job

DONE = "prepared"
LINKED = ("branched.npz", "fused", "folded", "model")
"""What the shapes share."""


def write_weights(folder: Path) -> None:
    """Writes what the job in the folder needs."""
    job = Job.read(folder)
    if job.work == "vlm":
        write_model(folder, job)
    else:
        write_network(folder, job)


def write_network(folder: Path, job: Job) -> None:
    """`branched.npz` under timm's names; `fused` and `folded` as our presets, of any size."""
    import numpy as np

    from dl_techniques import FastVLM
    from dl_techniques.checkpoints.vision.reading import network_map
    from dl_techniques.checkpoints.weight_map import export_weights
    from tools.random_weights import randomize

    network = FastVLM.from_variant(job.network, include_top=False)
    randomize(network)
    arrays: dict[str, Any] = dict(export_weights(network_map(network, "timm")))
    np.savez(folder / "branched.npz", **arrays)
    for form in ("fused", "folded"):
        network.reparameterize(fold=form == "folded")
        network.save_to_preset(folder / form)


def write_model(folder: Path, job: Job) -> None:
    """A folder of transformers with random weights, in bfloat16."""
    from tools.compare_peers.transformers_peers import random_model

    random_model(job).bfloat16().save_pretrained(folder / "model")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Begins to write the weights, on the CPU."""
    variables = {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "tools.compare_peers.gpu.prepare", str(folder)],
        env={**os.environ, **variables},
        stdout=sys.stderr,
    )


def prepare_all(weights: Iterable[tuple[Path, Job]]) -> None:
    """Writes several jobs' weights side by side, those that are not there yet.

    Raises:
        SystemExit: a folder holds another job's weights, or a process failed.
    """
    running: dict[Path, subprocess.Popen[bytes]] = {}
    for folder, job in weights:
        if (folder / DONE).is_file():
            if Job.read(folder) != job:
                raise SystemExit(f"{folder} was prepared for {Job.read(folder)}, not for {job}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        job.write(folder)
        running[folder] = start(folder)
    for folder, process in running.items():
        if process.wait():
            raise SystemExit(f"the weights in {folder} could not be written: {process.returncode}")
        (folder / DONE).touch()


def link(weights: Path, folder: Path) -> None:
    """Gives a shape's folder the weights."""
    for name in LINKED:
        if (weights / name).exists():
            (folder / name).symlink_to((weights / name).resolve())


if __name__ == "__main__":
    write_weights(Path(sys.argv[1]))
