"""A whole model that looks at drawings with the shipped model's first tower alone."""

from __future__ import annotations

import numpy as np

from dl_techniques import (
    FastVLM,
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
)


def one_tower() -> FastVLMCausalLM:
    """The first tower, the decoder and the tokenizer of the shipped model, a random projector."""
    shipped = FastVLMCausalLM.from_preset("demo", dtype="float32")
    decoder = shipped.backbone.text_backbone
    backbone = FastVLMBackbone(FastVLM.from_preset("demo"), decoder, projector_dim=320)
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(0, 0.05, w.shape).astype("float32") for w in backbone.projector.get_weights()
    ]
    backbone.projector.set_weights(weights)
    words = shipped.preprocessor
    preprocessor = FastVLMCausalLMPreprocessor(
        words.tokenizer,
        FastVLMImageConverter((64, 64)),
        sequence_length=words.sequence_length,
        num_image_tokens=backbone.num_image_tokens or 1,
        system_prompt=words.system_prompt,
        template=words.template,
    )
    return FastVLMCausalLM(backbone, preprocessor)
