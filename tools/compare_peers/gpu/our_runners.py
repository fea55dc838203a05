"""Our network in bfloat16 on Keras' JAX backend, and what JAX's peers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers.gpu.settings import DTYPE, Settings
from tools.compare_peers.gpu.timing import seconds_of, turn
from tools.compare_peers.job import Job


class OurJaxRunner:
    """One jitted function: bfloat16[B, S, S, 3] -> bfloat16[B, h, w, C], both on the device.

    Args:
        folder: of the shape.
        form: "folded" or "fused".
        shifts: depthwise convolutions as shifted sums instead of the library's.
    """

    def __init__(self, folder: Path, form: str = "folded", shifts: bool = False) -> None:
        import jax
        import jax.numpy as jnp

        from dl_techniques import FastVLM

        job, self.settings = Job.read(folder), Settings.read(folder)
        check_jax(self.settings)
        choose_convolution(shifts)
        network = FastVLM.from_preset(folder / form, dtype=DTYPE)
        self.values = [variable.value for variable in network.variables]
        self.images = jax.device_put(jnp.asarray(job.pictures(), DTYPE))
        self.forward = jax.jit(_stateless(network))
        for _ in range(2):
            self._run()

    def _run(self) -> Any:
        return self.forward(self.values, self.images).block_until_ready()

    def times(self) -> dict[str, float]:
        """Seconds of a forward pass, the median of a turn."""
        return turn(lambda: {"forward": seconds_of(self._run, lambda: None)}, self.settings)

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        return np.asarray(self._run()).astype("float32")

    def device(self) -> str:
        """The card's name."""
        return jax_device_name()


def check_jax(settings: Settings) -> None:
    """Refuses to measure another device than the one asked for.

    Raises:
        RuntimeError: JAX computes elsewhere.
    """
    import jax

    wanted = "gpu" if settings.device == "cuda" else settings.device
    if jax.default_backend() != wanted:
        raise RuntimeError(f"JAX computes on {jax.default_backend()}, not on {wanted}")


def jax_device_name() -> str:
    """The card's name, as JAX gives it."""
    import jax

    return str(jax.devices()[0].device_kind)


def choose_convolution(shifts: bool) -> None:
    """Depthwise convolutions of this process: shifted sums, or the library's."""
    from dl_techniques.kernels import jax_depthwise, reference
    from dl_techniques.kernels.table import TABLE, Kernel

    chosen = jax_depthwise.jax_depthwise_conv if shifts else reference.depthwise_conv
    TABLE["depthwise_conv"] = Kernel(chosen)


def _stateless(network: Any) -> Any:
    """The network as a function of its values and pictures."""
    import keras

    variables = network.variables

    def forward(values: list[Any], images: Any) -> Any:
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return network(images, training=False)

    return forward
