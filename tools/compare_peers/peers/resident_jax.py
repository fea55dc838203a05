"""Our network on JAX as one compiled function, its pictures and weights on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers.job import Job
from tools.compare_peers.peers.device import check_keras
from tools.compare_peers.peers.keras_peers import choose_convolution
from tools.compare_peers.timing import seconds_of


class JaxRunner:
    """One jitted function: bfloat16[B, S, S, 3] -> bfloat16[B, h, w, C], both on the device.

    Args:
        folder: of the comparison.
        form: "folded" or "fused".
        convolution: see `choose_convolution`.
    """

    def __init__(self, folder: Path, form: str = "folded", convolution: str | None = None) -> None:
        import jax
        import jax.numpy as jnp

        from dl_techniques import FastVLM

        job = Job.read(folder)
        check_keras(job)
        choose_convolution(convolution)
        network = FastVLM.from_preset(folder / form, dtype="bfloat16")
        self.values = [variable.value for variable in network.variables]
        self.images = jax.device_put(jnp.asarray(job.pictures(), "bfloat16"))
        self.forward = jax.jit(_stateless(network))

    def _run(self) -> Any:
        return self.forward(self.values, self.images).block_until_ready()

    def times(self) -> dict[str, float]:
        """Seconds of a forward pass."""
        return {"forward": seconds_of(self._run, lambda: None)}

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        return np.asarray(self._run()).astype("float32")


def _stateless(network: Any) -> Any:
    """The network as a function of its values and pictures."""
    import keras

    variables = network.variables

    def forward(values: list[Any], images: Any) -> Any:
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return network(images, training=False)

    return forward
