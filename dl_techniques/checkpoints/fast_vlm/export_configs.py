"""The JSON files of the Hugging Face layout, from our objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras_hub

from dl_techniques.checkpoints.fast_vlm.towers import ARCHITECTURE, timm_arguments
from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter

if TYPE_CHECKING:
    import keras

IMAGE_TOKEN_ID = 151646
LONGEST = 32768
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


def model_config(
    backbone: FastVLMBackbone,
    tokenizer: keras.layers.Layer | None = None,
    dtype: str | None = None,
    image_token_id: int | None = None,
) -> dict[str, Any]:
    """`config.json` of `FastVlmForConditionalGeneration`.

    Args:
        backbone: the model.
        tokenizer: gives the ids of the control tokens; None for Qwen2's.
        dtype: type of the tensors. Defaults to the decoder's variables.
        image_token_id: of the placeholder, where there is no tokenizer.

    Raises:
        VariantError: a tower, projector or decoder that this layout cannot hold.
    """
    text = text_config(backbone.text_backbone)
    if backbone.image_tokens is not None:
        raise VariantError(
            f"a model that keeps {backbone.image_tokens} rows of a picture cannot be written for "
            "transformers, which takes them all; call select_tokens(None) first"
        )
    if backbone.projector.pool is not None or backbone.projector.enhancer is not None:
        raise VariantError(
            "a projector that pools or enhances its rows cannot be written for transformers, which "
            "has none; build the backbone without pool= and enhance="
        )
    if backbone.projector.hidden_dim != backbone.hidden_dim:
        raise VariantError(
            f"a projector {backbone.projector.hidden_dim} wide inside cannot be written for "
            f"transformers, whose projector is as wide as the decoder, {backbone.hidden_dim}"
        )
    ids = {"bos_token_id": "end_token2_id", "eos_token_id": "end_token_id"}
    ids["pad_token_id"] = "pad_token_id"
    if tokenizer is not None:
        text |= {name: getattr(tokenizer, own) for name, own in ids.items()}
        image_token_id = tokenizer.image_token_id
    return {
        "architectures": ["FastVlmForConditionalGeneration"],
        "model_type": "fast_vlm",
        "dtype": dtype or str(backbone.token_embedding.embeddings.dtype),
        "image_token_index": IMAGE_TOKEN_ID if image_token_id is None else image_token_id,
        "image_seq_length": backbone.num_image_tokens or 0,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": text["tie_word_embeddings"],
        "text_config": text,
        "vision_config": vision_config(backbone.vision_encoder),
    }


def text_config(decoder: keras.Model) -> dict[str, Any]:
    """`text_config` of a Qwen2 decoder.

    Raises:
        VariantError: another decoder.
    """
    if type(decoder) is not keras_hub.models.QwenBackbone:
        raise VariantError(
            f"a {type(decoder).__name__} cannot be written for transformers' FastVLM, whose "
            "decoder is Qwen2; use save_to_preset()"
        )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": decoder.rope_max_wavelength}
    if decoder.rope_scaling_factor != 1:
        rope |= {"rope_type": "linear", "factor": decoder.rope_scaling_factor}
    sliding = bool(decoder.use_sliding_window_attention)
    return {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "vocab_size": decoder.vocabulary_size,
        "hidden_size": decoder.hidden_dim,
        "intermediate_size": decoder.intermediate_dim,
        "num_hidden_layers": decoder.num_layers,
        "num_attention_heads": decoder.num_query_heads,
        "num_key_value_heads": decoder.num_key_value_heads,
        "rms_norm_eps": decoder.layer_norm_epsilon,
        "rope_parameters": rope,
        "max_position_embeddings": LONGEST,
        "use_sliding_window": sliding,
        "sliding_window": decoder.sliding_window_size if sliding else None,
        "max_window_layers": 0 if sliding else decoder.num_layers,
        "tie_word_embeddings": bool(decoder.tie_word_embeddings),
    }


def vision_config(encoder: Any) -> dict[str, Any]:
    """`vision_config` of a tower.

    Raises:
        VariantError: no network that timm can build as `fastvit_mci3`.
    """
    if not isinstance(encoder, FastVLM) or encoder.include_top:
        raise VariantError(
            f"the vision encoder {encoder.name!r} cannot be written for transformers: expected a "
            "FastVLM with include_top=False"
        )
    if encoder.folded:
        raise VariantError(
            "a folded tower cannot be written for transformers: call reset_reparameterization(), "
            "then reparameterize()"
        )
    return {
        "model_type": "timm_wrapper",
        "architecture": ARCHITECTURE,
        "do_pooling": False,
        "hidden_size": encoder.feature_dim,
        "initializer_range": 0.02,
        "model_args": timm_arguments(encoder.config, encoder.reparameterized),
    }


def image_processor_config(converter: FastVLMImageConverter) -> dict[str, Any]:
    """`preprocessor_config.json`: what transformers does, the middle square of a picture."""
    size = converter.image_size[0]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": RESAMPLING[converter.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(converter.mean),
        "image_std": list(converter.std),
    }


def tokenizer_config(tokenizer: keras.layers.Layer, longest: int | None = None) -> dict[str, Any]:
    """`tokenizer_config.json`."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaProcessor",
        "eos_token": tokenizer.end_token,
        "pad_token": tokenizer.pad_token,
        "image_token": tokenizer.image_token,
        "extra_special_tokens": {"image_token": tokenizer.image_token},
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    return config if longest is None else {**config, "model_max_length": longest}
