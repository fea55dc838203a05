"""The one place where timm is imported: plain attention, offline, a torchvision that loads.

Also the recipe that every comparison with timm starts from: nothing keeps its initial value.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["TIMM_FUSED_ATTN"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402

from tests.parity import torchvision_schemas  # noqa: E402

torchvision_schemas.declare()

import timm  # noqa: E402
from timm.utils import reparameterize_model  # noqa: E402

__all__ = ["create", "outputs", "randomize", "reparameterize_model", "timm", "torch"]


def create(name: str, seed: int = 1, gain: float = 1.0, **options: Any) -> Any:
    """A network of timm's in inference mode, random through and through."""
    return randomize(timm.create_model(name, **options), seed, gain).eval()


def randomize(network: Any, seed: int, gain: float = 1.0) -> Any:
    """Weights N(0, 1 / fan_in), biases and means small, statistics and scales away from 0 and 1.

    Args:
        network: all of its floats are overwritten.
        seed: of the draw.
        gain: of the norms. Sums of branches grow from block to block where nothing scales them,
            until rounding alone decides the squeeze-and-excitations of a deep network.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dtype.is_floating_point:
                is_norm = name.endswith("weight") and tensor.ndim == 1
                tensor.copy_(_draw(name, tensor, generator) * (gain if is_norm else 1.0))
    return network


def _draw(name: str, tensor: Any, generator: Any) -> Any:
    shape = tensor.shape
    if "layer_scale" in name:
        return torch.rand(shape, generator=generator) * 0.3 + 0.1
    if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
        return torch.rand(shape, generator=generator) + 0.5
    if name.endswith("weight"):
        return torch.randn(shape, generator=generator) * (shape[0] / tensor.numel()) ** 0.5
    return torch.randn(shape, generator=generator) * (0.05 if name.endswith("bias") else 0.1)


def outputs(network: Any, pictures: Any) -> dict[str, Any]:
    """Stage outputs, final features and logits of float[B, H, W, 3] pictures, channels last."""
    x = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        stages = network.forward_intermediates(x, intermediates_only=True)
        features, logits = network.forward_features(x), network(x)
    maps = [*stages, features]
    named = dict(zip([*range(len(stages)), "features"], maps, strict=True))
    return {
        **{str(k): v.numpy().transpose(0, 2, 3, 1) for k, v in named.items()},
        "logits": logits.numpy(),
    }
