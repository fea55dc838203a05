"""FastVLM as transformers computes it in bfloat16, with its two kinds of caches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.compare_peers import transformers_peers
from tools.compare_peers.gpu.settings import DTYPE, REFERENCE, Settings
from tools.compare_peers.gpu.timing import turn
from tools.compare_peers.gpu.torch_device import device_name, prepare_torch, waiting
from tools.compare_peers.transformers_peers import transformers


class TransformersRunner(transformers_peers.TransformersRunner):
    """`generate`, with a look at the clock after every token.

    Args:
        folder: of the shape.
        cache: `cache_implementation` of `generate`; with "static" it compiles the decoder on CUDA.
        reference: whether to leave the logits in float32 for all peers.
    """

    def __init__(self, folder: Path, cache: str | None = None, reference: bool = False) -> None:
        self.settings = Settings.read(folder)
        prepare_torch(self.settings)
        self.wait = waiting(self.settings)
        self.cache = {} if cache is None else {"cache_implementation": cache}
        if reference:
            self._load(folder, "float32")
            np.save(folder / REFERENCE, self.output())
        self._load(folder, DTYPE)
        for _ in range(3):
            self._moments()

    def _load(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self.model.to(self.settings.device)
        self.host, self.kind = self.inputs, getattr(torch, dtype)
        self.host["pixel_values"] = self.host["pixel_values"].float()

    def _there(self) -> dict[str, torch.Tensor]:
        """The inputs on the device."""
        there = {name: tensor.to(self.settings.device) for name, tensor in self.host.items()}
        there["pixel_values"] = there["pixel_values"].to(self.kind)
        return there

    def _moments(self) -> list[float]:
        """Seconds from the start to each token of an answer, greedy."""
        moments: list[float] = []

        def note(ids: Any, scores: Any, **_: Any) -> torch.Tensor:
            """Called after every token; nothing ever stops the answer."""
            self.wait()
            moments.append(time.perf_counter() - start)
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        criteria = transformers.StoppingCriteriaList([note])
        self.wait()
        start = time.perf_counter()
        with torch.inference_mode():
            self.model.generate(
                **self._there(), max_new_tokens=1 + self.new_tokens, do_sample=False,
                stopping_criteria=criteria, **self.cache,
            )  # fmt: skip
        return moments

    def times(self) -> dict[str, float]:
        """Seconds to the first token, and of each further one, medians of a turn."""
        return turn(super().times, self.settings)

    def output(self) -> np.ndarray:
        """Logits of the first new token, float32[1, vocabulary]."""
        with torch.inference_mode():
            logits = self.model(**self._there(), logits_to_keep=1).logits
        return np.asarray(logits[:, -1].float().cpu().numpy())

    def device(self) -> str:
        """The card's name."""
        return device_name(self.settings)
