"""Our FastVLM on the Keras backend of this process, loaded from the folder of transformers."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers.job import IMAGE_ID, Job
from tools.compare_peers.peers.device import check_keras
from tools.compare_peers.peers.keras_peers import set_threads


class OurRunner:
    """An answer token by token; and another question about the same picture.

    Args:
        folder: of the comparison.
        dtype: of what is not quantized.
        quantize: of projector and decoder, as Keras' `quantize`.
        static: whether the encoder's matrix products are in static int8.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str = "float32",
        quantize: str | None = None,
        static: bool = False,
    ) -> None:
        import keras

        from dl_techniques import FastVLMCausalLM
        from dl_techniques.compression.static_int8 import quantize_static
        from dl_techniques.runtime.compile import CALLS_BEFORE_RECORDING

        job = Job.read(folder)
        set_threads(job.threads)
        check_keras(job)
        self.model = FastVLMCausalLM.from_preset(folder / "model", preprocessor=None, dtype=dtype)
        self.model.reparameterize(fold=True)
        if static:
            quantize_static(self.model, job.pictures(seed=8))
        if quantize is not None:
            self.model.quantize(quantize)
        self.job, self.new_tokens = job, job.new_tokens
        self.inputs = self._inputs(job)
        if keras.config.backend() == "torch":  # what a process gets that answers often
            for _ in range(CALLS_BEFORE_RECORDING):
                self.model.encode_images(self.inputs["images"])
            for _ in range(1 + CALLS_BEFORE_RECORDING // job.new_tokens):
                self._moments()

    def _inputs(self, job: Job) -> dict[str, np.ndarray]:
        row = np.array([job.prompt(self.model.backbone.num_image_tokens)], "int32")
        free = 1 + job.new_tokens
        return {
            "token_ids": np.pad(row, [(0, 0), (0, free)]),
            "padding_mask": np.pad(np.ones_like(row, bool), [(0, 0), (0, free)]),
            "images": job.pictures()[:, None],
            "vision_indices": np.flatnonzero(row[0] == IMAGE_ID).astype("int32")[None],
        }

    def _moments(self) -> list[float]:
        """Seconds from the start to each token of an answer, greedy, by the loop of `generate`."""
        from keras import ops

        from dl_techniques.models.vlm.fast_vlm.answer.streaming import TokenLoop

        start = time.perf_counter()
        logits, state = self._first_logits()
        limits = np.array([1 + self.new_tokens])
        choose = functools.partial(ops.argmax, axis=-1)
        loop = TokenLoop(self.model.phases, logits, state, choose, (), limits)
        return [time.perf_counter() - start for _ in loop]

    def times(self) -> dict[str, float]:
        """Seconds to the first token, of each further one, and to that of a second question."""
        moments = self._moments()
        return {
            "first_token": moments[0],
            "token": (moments[-1] - moments[0]) / self.new_tokens,
            "second_question": self._second_question(),
        }

    def _second_question(self) -> float:
        """The picture and the first question are in the cache; new are the words of the next."""
        from keras import ops

        from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts, prompt_bucket

        logits, state = self._first_logits()
        ops.convert_to_numpy(logits)  # some backends compute later than they are called
        words = np.array(self.job.words(2))
        size = prompt_bucket(len(words))
        ids = np.pad(words, (0, size - len(words))).astype("int32")[None]
        nothing = np.zeros((1, 0), "int32")
        offsets, used = np.zeros(1, "int32"), np.zeros((1, 0), bool)
        prompts = Prompts(ids, offsets, len(words), nothing, used)
        rows = np.zeros((1, 0, self.model.backbone.hidden_dim), "float32")
        start = time.perf_counter()
        logits, _ = self.model.phases.extend(prompts, rows, state, state.index)
        ops.convert_to_numpy(ops.argmax(logits, axis=-1))
        return time.perf_counter() - start

    def _first_logits(self) -> tuple[Any, Any]:
        rows = self.model.encode_images(self.inputs["images"])
        return self.model.prefill(self.inputs, rows, self.new_tokens + 2 * self.job.text_tokens)

    def output(self) -> np.ndarray:
        """Logits of the first new token, float32[1, vocabulary]."""
        from keras import ops

        return ops.convert_to_numpy(ops.cast(self._first_logits()[0], "float32"))
