"""Small random FastVLMs as folders in Apple's and in Hugging Face's layout."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import keras
import keras_hub
import ml_dtypes
import numpy as np

from dl_techniques.checkpoints.fast_vlm.export import transformers_map
from dl_techniques.checkpoints.fast_vlm.towers import timm_arguments
from dl_techniques.checkpoints.tensor_files import TensorInfo
from dl_techniques.checkpoints.tensor_writer import save_tensors
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMTokenizer
from dl_techniques.models.vlm.fast_vlm.network.variants import tower_arguments
from tests.models.vlm.fast_vlm.small_model import TEXTS, randomize

SIZE, ROWS = 64, 304
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOWER = dataclasses.replace(
    FastVLMConfig.from_variant("fastvithd"),
    embed_dims=(8, 16, 32),
    depths=(1, 2, 1),
    mixers=("repmixer", "repmixer", "attention"),
    positional_stages=(2,),
)
PLAIN_TOWER = dataclasses.replace(
    TOWER, embed_dims=(8, 16), depths=(2, 1), mixers=("repmixer",) * 2, positional_stages=()
)
Arrays = dict[str, np.ndarray]


def timm_arguments_of(variant: str) -> dict[str, Any]:
    """How timm is told to build a variant, fused."""
    return timm_arguments(FastVLMConfig.from_variant(variant), fused=True)


def make_tokenizer() -> FastVLMTokenizer:
    """A tokenizer whose special tokens come last, `<image>` after all others."""
    return FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=300)


def make_backbone(
    tower: FastVLMConfig = TOWER, tied: bool = False, size: int = SIZE, dtype: str = "float32"
) -> FastVLMBackbone:
    """A backbone whose weights all fit bfloat16 exactly."""
    encoder = FastVLM(**tower_arguments(tower, size), dtype=dtype)
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=ROWS,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=16,
        intermediate_dim=24,
        rope_max_wavelength=500.0,
        layer_norm_epsilon=1e-3,
        tie_word_embeddings=tied,
        dtype=dtype,
    )
    backbone = FastVLMBackbone(encoder, decoder, dtype=dtype)
    randomize(backbone)
    for weight in backbone.weights:
        weight.assign(numbers(weight).astype(ml_dtypes.bfloat16).astype("float32"))
    return backbone


def numbers(weight: Any) -> np.ndarray:
    """A weight as float32."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(weight.value, "float32")))


def transformers_arrays(backbone: FastVLMBackbone, dtype: Any = ml_dtypes.bfloat16) -> Arrays:
    """The tensors of the Hugging Face layout, by our own table."""
    return {
        name: entry.transform.to_source(numbers(entry.variable).astype(dtype))
        for name, entry in transformers_map(backbone).items()
    }


def apple_name(name: str, places: dict[tuple[str, str], int]) -> str:
    """Apple's name of a tensor of the Hugging Face layout.

    Args:
        name: in the Hugging Face layout.
        places: (stage, "downsample", "pos_emb" or "blocks") -> index in Apple's flat list.
    """
    prefix = "model.vision_tower.timm_model."
    if not name.startswith(prefix):
        name = name.replace("model.language_model.", "model.")
        name = name.replace("multi_modal_projector.linear_1", "mm_projector.0")
        return name.replace("multi_modal_projector.linear_2", "mm_projector.2")
    rest = name.removeprefix(prefix)
    rest = re.sub(r"^stem\.", "patch_embed.", rest)
    rest = re.sub(r"^final_conv\.", "conv_exp.", rest)
    rest = rest.replace("se.fc1", "se.reduce").replace("se.fc2", "se.expand")
    rest = rest.replace(".mlp.", ".convffn.").replace(".gamma", "")
    found = re.match(r"stages\.(\d+)\.(downsample|pos_emb|blocks)\.(.*)", rest)
    if found:
        stage, kind, tail = found.groups()
        if kind == "downsample" and tail.startswith("proj.0.reparam_conv"):
            tail = tail.replace("reparam_conv", "lkb_reparam")
        rest = f"network.{places[stage, kind]}.{tail}"
    return f"model.vision_tower.vision_tower.model.{rest}"


def flat_places(tower: FastVLMConfig) -> dict[tuple[str, str], int]:
    """Where Apple's flat list has the parts of every stage."""
    places: dict[tuple[str, str], int] = {}
    for stage in range(len(tower.depths)):
        kinds = ["downsample"] * (stage > 0) + ["pos_emb"] * tower.has_position(stage) + ["blocks"]
        for kind in kinds:
            places[str(stage), kind] = len(places)
    return places


def apple_arrays(backbone: FastVLMBackbone, dtype: Any = ml_dtypes.bfloat16) -> Arrays:
    """The tensors of Apple's layout, counters and the unused projection among them."""
    tower = backbone.vision_encoder.config
    places, arrays = flat_places(tower), {}
    for name, array in transformers_arrays(backbone, dtype).items():
        name = apple_name(name, places)
        arrays[name] = array
        if name.endswith("running_var"):
            arrays[name.replace("running_var", "num_batches_tracked")] = np.array(5, "int64")
    width = tower.embed_dims[-1] * 2
    unused = "model.vision_tower.vision_tower.model.head.proj"
    arrays[unused] = np.ones((width, 12), dtype)
    return arrays


def apple_config(backbone: FastVLMBackbone) -> dict[str, Any]:
    """`config.json` as Apple writes it; the tie flag there means nothing."""
    decoder = backbone.text_backbone
    return {
        "model_type": "llava_qwen2",
        "architectures": ["LlavaQwen2ForCausalLM"],
        "vocab_size": decoder.vocabulary_size,
        "hidden_size": decoder.hidden_dim,
        "intermediate_size": decoder.intermediate_dim,
        "num_hidden_layers": decoder.num_layers,
        "num_attention_heads": decoder.num_query_heads,
        "num_key_value_heads": decoder.num_key_value_heads,
        "rms_norm_eps": decoder.layer_norm_epsilon,
        "rope_theta": decoder.rope_max_wavelength,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "mm_vision_tower": f"mobileclip_l_{backbone.image_size[0]}",
        "mm_hidden_size": backbone.vision_encoder.feature_dim,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "image_aspect_ratio": "pad",
        "tokenizer_model_max_length": 192,
    }


def write(folder: Path, arrays: Arrays, shard_bytes: int = 10**9) -> None:
    """Tensors as `model.safetensors`, or as shards."""
    folder.mkdir(parents=True, exist_ok=True)
    infos = {name: TensorInfo(array.shape, array.dtype) for name, array in arrays.items()}
    save_tensors(folder, infos, arrays.__getitem__, shard_bytes)


def write_tokenizer(folder: Path) -> None:
    """`vocab.json`, `merges.txt` and `tokenizer_config.json`, without `<image>`, as Apple's."""
    tokenizer = make_tokenizer()
    plain = {k: v for k, v in tokenizer.vocabulary.items() if k not in (*SPECIAL, "<image>")}
    (folder / "vocab.json").write_text(json.dumps(plain))
    (folder / "merges.txt").write_text("\n".join(tokenizer.merges))
    added = {tokenizer.vocabulary[t]: {"content": t, "special": True} for t in SPECIAL}
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}
    config |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def apple_folder(folder: Path, backbone: FastVLMBackbone, shard_bytes: int = 10**9) -> Path:
    """A whole folder in Apple's layout."""
    write(folder, apple_arrays(backbone), shard_bytes)
    (folder / "config.json").write_text(json.dumps(apple_config(backbone)))
    write_tokenizer(folder)
    return folder


def same_weights(left: Any, right: Any) -> bool:
    """Whether two models hold the same bits."""
    pairs = zip(left.weights, right.weights, strict=True)
    return all(np.array_equal(numbers(a), numbers(b)) for a, b in pairs)
