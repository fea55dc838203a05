"""timm's network in bfloat16: eager, or under torch.compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tools.compare_peers.gpu.settings import DTYPE, REFERENCE, Settings
from tools.compare_peers.gpu.torch_device import TorchForward
from tools.compare_peers.job import Job
from tools.compare_peers.torch_peers import timm_network


class TimmRunner(TorchForward):
    """The fused network: bfloat16[B, 3, S, S] -> bfloat16[B, C, h, w], both on the device.

    Args:
        folder: of the shape.
        channels_last: layout of weights and pictures in memory.
        mode: of torch.compile; None for eager.
        reference: whether to leave the result in float32 for all peers.
    """

    def __init__(
        self,
        folder: Path,
        channels_last: bool = True,
        mode: str | None = None,
        reference: bool = False,
    ) -> None:
        super().__init__(Settings.read(folder))
        job = Job.read(folder)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network = timm_network(folder, job).to(self.settings.device, memory_format=layout)
        pictures = torch.from_numpy(np.ascontiguousarray(job.pictures().transpose(0, 3, 1, 2)))
        self.images = pictures.to(self.settings.device).contiguous(memory_format=layout)
        self.forward = network.forward_features
        if reference:
            np.save(folder / REFERENCE, self.output())
        network.to(getattr(torch, DTYPE))
        self.images = self.images.to(getattr(torch, DTYPE))
        if mode is not None:
            self.forward = torch.compile(self.forward, mode=mode)
        self.warm_up()

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        return np.ascontiguousarray(self.run().float().cpu().numpy().transpose(0, 2, 3, 1))
