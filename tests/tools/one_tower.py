"""A whole model that looks at drawings with the shipped model's first tower alone."""

from __future__ import annotations

from dl_techniques import (
    FastVLM,
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
)


def one_tower() -> FastVLMCausalLM:
    """The shipped model without its second tower and its tags."""
    shipped = FastVLMCausalLM.from_preset("demo", dtype="float32")
    before, tower = shipped.backbone, FastVLM.from_preset("demo")
    backbone = FastVLMBackbone(tower, before.text_backbone, projector_dim=before.projector_dim)
    kernel, *others = before.projector.get_weights()
    backbone.projector.set_weights([kernel[: int(tower.output_shape[-1])], *others])
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
