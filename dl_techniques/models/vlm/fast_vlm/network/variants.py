"""Published sizes of the vision-language model: tower, picture size, decoder, read from YAML.

One file a size in `variants/vlm`: enough to build the network, to study its shapes, its memory
and its speed, or to put loaded weights into it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import keras_hub
import yaml

from dl_techniques.errors import VariantError
from dl_techniques.models.vision.arguments import refuse_float16
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.variant_files import nearest, variants_folder
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import DEFAULT_SYSTEM_PROMPT


@dataclasses.dataclass(frozen=True)
class QwenNumbers:
    """Arguments of KerasHub's `QwenBackbone`; the defaults are what all published sizes share."""

    vocabulary_size: int
    num_layers: int
    num_query_heads: int
    num_key_value_heads: int
    hidden_dim: int
    intermediate_dim: int
    rope_max_wavelength: float = 1e6
    layer_norm_epsilon: float = 1e-6
    tie_word_embeddings: bool = False


@dataclasses.dataclass(frozen=True)
class FastVLMVariant:
    """One size.

    Args:
        tower: variant of the vision network, used without its classifier and fused.
        image_size: side of the square pictures, pixels.
        sequence_length: longest prompt and answer together, tokens.
        decoder: numbers of the text decoder.
        projector_dim: width between the projector's two layers; `None` for the decoder's.
        system_prompt: of the chat template.
        max_new_tokens: longest answer where nothing else is asked for.
        temperature: of sampling, as in Apple's `predict.py`.

    Example:
        >>> FastVLMVariant.named("fastvlm_0.5b").decoder.hidden_dim
        896
    """

    tower: str
    image_size: int
    sequence_length: int
    decoder: QwenNumbers
    projector_dim: int | None = None
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    max_new_tokens: int = 256
    temperature: float = 0.2

    @classmethod
    def named(cls, name: str) -> FastVLMVariant:
        """The size of that name.

        Raises:
            VariantError: there is none (the nearest is given).
        """
        variants = load_vlm_variants()
        if name not in variants:
            near = nearest(name, variants, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise VariantError(f"unknown variant {name!r}: {hint}known: {', '.join(variants)}")
        return variants[name]

    def with_overrides(self, overrides: Mapping[str, Any]) -> FastVLMVariant:
        """The size with other numbers; those of the decoder go by their own names.

        Raises:
            VariantError: an unknown name (the nearest is given).
        """
        own, decoder = _names(FastVLMVariant) - {"decoder"}, _names(QwenNumbers)
        _refuse_unknown(overrides, own | decoder, "overrides")
        numbers = {k: v for k, v in overrides.items() if k in decoder}
        rest: dict[str, Any] = {k: v for k, v in overrides.items() if k in own}
        return dataclasses.replace(
            self, decoder=dataclasses.replace(self.decoder, **numbers), **rest
        )

    def tower_arguments(self) -> dict[str, Any]:
        """Arguments of `FastVLM` for the tower: headless, fused, at this size's pictures."""
        return tower_arguments(FastVLMConfig.from_variant(self.tower), self.image_size)


def _names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _refuse_unknown(given: Iterable[str], known: set[str], source: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise VariantError(f"{source}: unknown key {key!r}; {hint}")


@functools.cache
def load_vlm_variants() -> dict[str, FastVLMVariant]:
    """All sizes by name, smallest first."""
    folder = variants_folder() / "vlm"
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}
    return dict(sorted(found.items(), key=lambda item: item[1].decoder.hidden_dim))


def _read(path: Any) -> FastVLMVariant:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not isinstance(values.get("decoder"), dict):
        raise VariantError(f"{path.name}: expected fields of a variant, `decoder` among them")
    _refuse_unknown(values, _names(FastVLMVariant), path.name)
    _refuse_unknown(values["decoder"], _names(QwenNumbers), f"{path.name}: decoder")
    return FastVLMVariant(**{**values, "decoder": QwenNumbers(**values["decoder"])})


def tower_arguments(config: FastVLMConfig, image_size: int, fused: bool = True) -> dict[str, Any]:
    """Arguments of `FastVLM` for a tower with a config's numbers."""
    only_config = ("image_size", "mean", "std", "crop_fraction", "interpolation")
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in only_config}
    values |= {"include_top": False, "input_shape": (image_size, image_size, 3)}
    return {**values, "reparameterized": fused, "name": "vision_encoder"}


def build_backbone(
    tower: Mapping[str, Any],
    decoder: keras_hub.models.Backbone,
    projector_dim: int | None = None,
    dtype: Any = None,
) -> FastVLMBackbone:
    """Tower and decoder as one model, all in one data type.

    Raises:
        VariantError: float16, in which the tower overflows.
    """
    refuse_float16(dtype)
    encoder = FastVLM(**tower, dtype=dtype)
    return FastVLMBackbone(encoder, decoder, projector_dim=projector_dim, dtype=dtype)


def build_variant(variant: FastVLMVariant, dtype: Any = None) -> FastVLMBackbone:
    """The network of a size, with random weights.

    Raises:
        VariantError: float16, in which the tower overflows.
    """
    refuse_float16(dtype)
    numbers = dataclasses.asdict(variant.decoder)
    decoder = keras_hub.models.QwenBackbone(**numbers, dtype=dtype, name="text_backbone")
    return build_backbone(variant.tower_arguments(), decoder, variant.projector_dim, dtype)
