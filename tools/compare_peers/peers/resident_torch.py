"""Our network on PyTorch as recorded operators, its pictures and weights on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from keras import ops
from torch.fx.experimental.proxy_tensor import make_fx

from dl_techniques import FastVLM
from tools.compare_peers.job import Job
from tools.compare_peers.peers.device import check_keras
from tools.compare_peers.peers.torch_peers import TorchForward


class RecordedRunner(TorchForward):
    """The operators of one call, as `predict_on_batch` records them, or compiled from there.

    bfloat16[B, S, S, 3] -> bfloat16[B, h, w, C], both on the device.

    Args:
        folder: of the comparison.
        form: "folded" or "fused".
        mode: of torch.compile; None for the operators one after another.
    """

    def __init__(self, folder: Path, form: str = "folded", mode: str | None = None) -> None:
        job = Job.read(folder)
        check_keras(job)
        super().__init__(job)
        network = FastVLM.from_preset(folder / form, dtype="bfloat16")
        self.images = ops.convert_to_tensor(job.pictures(), "bfloat16")
        if self.images.device.type != job.device:
            raise RuntimeError(f"Keras computes on {self.images.device}, not on {job.device}")
        with torch.no_grad():
            self.forward = make_fx(lambda images: network(images, training=False))(self.images)
        if mode is not None:
            self.forward = torch.compile(self.forward, mode=mode)

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        values: np.ndarray = self.run().float().cpu().numpy()
        return values
