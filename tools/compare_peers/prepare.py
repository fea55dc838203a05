"""Writes what the peers load: the same random weights in everybody's layout.

Run as `python -m tools.compare_peers.prepare FOLDER` in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tools.compare_peers.job import Job

MACS = "multiply_adds.txt"


def prepare_vision(folder: Path, job: Job) -> None:
    """`branched.npz` under timm's names; `fused` and `folded` as our presets.

    Pixels go in as they are: the preprocessing that exporters may build in is that of [0, 1].
    """
    import numpy as np

    from dl_techniques import FastVLM
    from dl_techniques.checkpoints.vision.reading import network_map
    from dl_techniques.checkpoints.weight_map import export_weights
    from tools.random_weights import randomize
    from tools.variant_table import count_macs

    pixels = {"size": job.image_size, "mean": [0.0] * 3, "std": [1.0] * 3}
    shape = (job.image_size, job.image_size, 3)
    network = FastVLM.from_variant(
        job.network, include_top=False, input_shape=shape, preprocessing=pixels
    )
    randomize(network)
    np.savez(folder / "branched.npz", **dict(export_weights(network_map(network, "timm"))))
    for form in ("fused", "folded"):
        network.reparameterize(fold=form == "folded")
        network.save_to_preset(folder / form)
    (folder / MACS).write_text(str(job.batch_size * count_macs(network, shape)))


def prepare_vlm(folder: Path, job: Job) -> None:
    """A folder of transformers with random weights, from its own classes."""
    from tools.compare_peers.peers.transformers_peers import random_model

    random_model(job).save_pretrained(folder / "model")


PREPARE: dict[str, Any] = {"vision": prepare_vision, "vlm": prepare_vlm}


def main(folder: Path) -> None:
    """Prepares one comparison."""
    job = Job.read(folder)
    PREPARE[job.work](folder, job)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
