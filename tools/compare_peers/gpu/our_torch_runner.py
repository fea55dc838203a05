"""Our network in bfloat16 on Keras' torch backend: recorded operators, or compiled from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from keras import ops
from torch.fx.experimental.proxy_tensor import make_fx

from dl_techniques import FastVLM
from tools.compare_peers.gpu.settings import DTYPE, Settings
from tools.compare_peers.gpu.torch_device import TorchForward
from tools.compare_peers.job import Job


class OurTorchRunner(TorchForward):
    """The operators of one call, as `predict_on_batch` records them, or compiled from there.

    bfloat16[B, S, S, 3] -> bfloat16[B, h, w, C], both on the device.

    Args:
        folder: of the shape.
        form: "folded" or "fused".
        mode: of torch.compile; None for the operators one after another.
    """

    def __init__(self, folder: Path, form: str = "folded", mode: str | None = None) -> None:
        super().__init__(Settings.read(folder))
        network = FastVLM.from_preset(folder / form, dtype=DTYPE)
        self.images = ops.convert_to_tensor(Job.read(folder).pictures(), DTYPE)
        if self.images.device.type != self.settings.device:
            raise RuntimeError(f"Keras computes on {self.images.device}")
        with torch.no_grad():
            self.forward = make_fx(lambda images: network(images, training=False))(self.images)
        if mode is not None:
            self.forward = torch.compile(self.forward, mode=mode)
        self.warm_up()

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        values: np.ndarray = self.run().float().cpu().numpy()
        return values
