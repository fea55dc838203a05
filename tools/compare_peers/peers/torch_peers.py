"""timm's network on torch: eager, channels_last, compiled, bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from tools import torchvision_schemas
from tools.compare_peers.job import Job
from tools.compare_peers.peers.device import prepare_torch, waiting
from tools.compare_peers.timing import seconds_of

torchvision_schemas.declare()

import timm  # noqa: E402
from timm.models.fastvit import FastVit, RepConditionalPosEnc  # noqa: E402


def timm_network(folder: Path, job: Job, fused: bool = True) -> Any:
    """timm's network with the comparison's weights.

    Raises:
        ValueError: a tensor is missing or left over.
    """
    network = create(job.network)
    with np.load(folder / "branched.npz") as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{job.network}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    network.eval()
    return timm.utils.reparameterize_model(network) if fused else network


def create(name: str) -> Any:
    """timm's network of that name; of the variants that timm has not, the same from its parts."""
    from dl_techniques.checkpoints.vision.sources import timm_name
    from dl_techniques.errors import VariantError

    try:
        return timm.create_model(timm_name(name), num_classes=0)
    except VariantError:
        return from_parts(FastVLMConfig.from_variant(name))


def from_parts(config: FastVLMConfig) -> Any:
    """A network of timm's blocks with our numbers; it ends with its last stage."""
    stages = range(len(config.depths))
    network = FastVit(
        layers=config.depths,
        embed_dims=config.embed_dims,
        mlp_ratios=(config.mlp_ratio,) * len(stages),
        token_mixers=tuple(config.stage_mixers),
        pos_embs=tuple(
            partial(RepConditionalPosEnc, spatial_shape=(7, 7)) if config.has_position(i) else None
            for i in stages
        ),
        downsamples=tuple(i > 0 for i in stages),
        se_downsamples=tuple(i > 0 and config.has_se(i) for i in stages),
        lkc_use_act=config.downsample_activation,
        stem_use_scale_branch=config.stem_scale_branch,
        cls_ratio=1.0,
        num_classes=0,
    )
    network.final_conv = torch.nn.Identity()
    return network


class TorchForward:
    """A forward pass whose pictures lie on the device; subclasses set `forward` and `images`.

    Args:
        job: says which device.
    """

    forward: Callable[[Any], Any]
    images: Any

    def __init__(self, job: Job) -> None:
        prepare_torch(job)
        self.wait = waiting(job)

    def run(self) -> Any:
        """Computes once; on a card, without waiting."""
        with torch.inference_mode():
            return self.forward(self.images)

    def times(self) -> dict[str, float]:
        """Seconds of one forward pass."""
        return {"forward": seconds_of(self.run, self.wait)}


class TorchRunner(TorchForward):
    """One way to run timm's network: float[B, 3, S, S] -> float[B, C, h, w].

    Args:
        folder: of the comparison.
        fused: whether its branches are one convolution.
        channels_last: layout of weights and pictures in memory.
        compiled: mode of `torch.compile`; None for eager.
        dtype: of weights and arithmetic.
    """

    def __init__(
        self,
        folder: Path,
        fused: bool = True,
        channels_last: bool = False,
        compiled: str | None = None,
        dtype: str = "float32",
    ) -> None:
        job = Job.read(folder)
        super().__init__(job)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        there: dict[str, Any] = {"device": job.device, "dtype": getattr(torch, dtype)}
        network = timm_network(folder, job, fused).to(**there).to(memory_format=layout)
        images = torch.from_numpy(np.ascontiguousarray(job.pictures().transpose(0, 3, 1, 2)))
        self.images = images.to(**there).contiguous(memory_format=layout)
        self.forward = network.forward_features
        if compiled is not None:
            self.forward = torch.compile(self.forward, mode=compiled)

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        return np.ascontiguousarray(self.run().float().cpu().numpy().transpose(0, 2, 3, 1))
