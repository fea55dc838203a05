"""FastVLM as transformers computes it, on torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dl_techniques.models.vlm.fast_vlm.network.variants import FastVLMVariant
from tools import torchvision_schemas
from tools.compare_peers.job import IMAGE_ID, Job
from tools.compare_peers.peers.device import prepare_torch, waiting

torchvision_schemas.declare()

import transformers  # noqa: E402

STRIDE = 64


def random_model(job: Job) -> Any:
    """`FastVlmForConditionalGeneration` of a published size, random through and through."""
    model = transformers.FastVlmForConditionalGeneration(model_config(job)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dtype.is_floating_point:
                tensor.copy_(_draw(name, tensor, generator))
    return model


def _draw(name: str, tensor: Any, generator: torch.Generator) -> Any:
    if "gamma" in name:
        return torch.rand(tensor.shape, generator=generator) * 0.3 + 0.1
    if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
        return torch.rand(tensor.shape, generator=generator) + 0.5
    scale = 0.1 if tensor.ndim == 1 or "embed_tokens" in name else _fan_in(tensor) ** -0.5
    return torch.randn(tensor.shape, generator=generator) * scale


def _fan_in(tensor: Any) -> float:
    return float(np.prod(tensor.shape[1:]))


def model_config(job: Job) -> Any:
    """transformers' config with a size's numbers."""
    variant = FastVLMVariant.named(job.network).with_overrides(
        {**job.numbers, "image_size": job.image_size}
    )
    numbers = variant.decoder
    text = {
        "model_type": "qwen2",
        "vocab_size": numbers.vocabulary_size,
        "hidden_size": numbers.hidden_dim,
        "intermediate_size": numbers.intermediate_dim,
        "num_hidden_layers": numbers.num_layers,
        "num_attention_heads": numbers.num_query_heads,
        "num_key_value_heads": numbers.num_key_value_heads,
        "rms_norm_eps": numbers.layer_norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": numbers.rope_max_wavelength},
        "tie_word_embeddings": numbers.tie_word_embeddings,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return transformers.FastVlmConfig(
        text_config=text,
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "do_pooling": False,
            "hidden_size": 3072,
            "model_args": {"inference_mode": True},
        },
        image_token_index=IMAGE_ID,
        image_seq_length=image_tokens(job),
        tie_word_embeddings=numbers.tie_word_embeddings,
    )


def image_tokens(job: Job) -> int:
    """Rows of one picture."""
    return (job.image_size // STRIDE) ** 2


class TransformersRunner:
    """`generate`, with a look at the clock after every token.

    Args:
        folder: of the comparison.
        dtype: of weights and arithmetic.
        cache: `cache_implementation` of `generate`; with "static" it compiles the decoder on CUDA.
    """

    def __init__(self, folder: Path, dtype: str = "float32", cache: str | None = None) -> None:
        job = Job.read(folder)
        prepare_torch(job)
        self.wait, self.dtype = waiting(job), getattr(torch, dtype)
        self.cache = {} if cache is None else {"cache_implementation": cache}
        self.model = transformers.FastVlmForConditionalGeneration.from_pretrained(
            folder / "model", dtype=self.dtype
        ).eval()
        self.model.to(job.device)
        self.model.generation_config.eos_token_id = None
        self.new_tokens = job.new_tokens
        pixels = torch.from_numpy(np.ascontiguousarray(job.pictures().transpose(0, 3, 1, 2)))
        ids = torch.tensor([job.prompt(image_tokens(job))])
        self.inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": pixels,
        }

    def _there(self) -> dict[str, torch.Tensor]:
        """The inputs, from the host's memory to the device."""
        there = {name: tensor.to(self.model.device) for name, tensor in self.inputs.items()}
        return {**there, "pixel_values": there["pixel_values"].to(self.dtype)}

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
        """Seconds to the first token, and of each further one."""
        moments = self._moments()
        return {
            "first_token": moments[0],
            "token": (moments[-1] - moments[0]) / self.new_tokens,
        }

    def output(self) -> np.ndarray:
        """Logits of the first new token, float32[1, vocabulary]."""
        with torch.inference_mode():
            logits = self.model(**self._there(), logits_to_keep=1).logits
        return logits[:, -1].float().cpu().numpy()
