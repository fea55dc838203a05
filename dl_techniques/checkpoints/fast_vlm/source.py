"""What a folder holds, read from its configs and from the shapes of its tensors, unloaded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.config_files import (
    CONFIG,
    Fields,
    read_json,
    read_json_if_there,
)
from dl_techniques.checkpoints.fast_vlm.layouts import APPLE, HEAD, MODEL_TYPES, Layout
from dl_techniques.checkpoints.fast_vlm.towers import tower_from_apple, tower_from_timm
from dl_techniques.checkpoints.language import DecoderSpec, check_layers, decoder_config
from dl_techniques.data.damage import reading, whole_number
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vlm.fast_vlm.network.variants import FastVLMVariant

APPLE_TOWER = "mobileclip_l_"
IMAGE_SIZE = 1024
LARGEST_SIDE = 2**16
"""No folder asks for larger pictures, or for more rows of one."""
SEQUENCE_LENGTH = 8192
UNSET_IMAGE_LENGTH = 576
"""What transformers writes as `image_seq_length` where nobody said anything."""


@dataclass(frozen=True)
class Source:
    """A FastVLM in a published layout.

    Args:
        folder: where it is.
        layout: how its tensors are named.
        config: content of `config.json`.
        decoder: the text decoder; tied if the file has no matrix for the logits.
        tower: the vision tower.
        fused: whether the tower's tensors are those of its inference form.
        image_size: side of the pictures, pixels.
    """

    folder: Path
    layout: Layout
    config: Mapping[str, Any]
    decoder: DecoderSpec
    tower: FastVLMConfig
    fused: bool
    image_size: int

    @property
    def num_image_tokens(self) -> int:
        """Positions that a picture takes."""
        side = math.ceil(self.image_size / self.tower.total_stride)
        return side * side

    @property
    def sequence_length(self) -> int:
        """Longest prompt and answer together, tokens."""
        text = Fields(self.config.get("text_config") or self.config, str(self.folder / CONFIG))
        path = self.folder / "tokenizer_config.json"
        limits = (
            Fields(self.config, str(self.folder / CONFIG)).real("tokenizer_model_max_length"),
            Fields(read_json_if_there(path), str(path)).real("model_max_length"),
        )
        # Where nobody set a limit, transformers writes 1e30.
        length = next((limit for limit in limits if limit and limit < 1e9), SEQUENCE_LENGTH)
        return int(min(length, text.whole("max_position_embeddings") or length))

    def check_variant(self, name: str) -> None:
        """Compares with what the caller says it is.

        Raises:
            VariantError: there is no such variant.
            CheckpointError: it is another size; what differs is listed.
        """
        variant = FastVLMVariant.named(name)
        numbers = {
            f"decoder {k}": v
            for k, v in dataclasses.asdict(variant.decoder).items()
            # The conversion pads the vocabulary, and the file decides about the logits.
            if k not in ("vocabulary_size", "tie_word_embeddings")
        }
        found = {key: self.decoder.kwargs.get(key.removeprefix("decoder ")) for key in numbers}
        tower = FastVLMConfig.from_variant(variant.tower)
        for field in ("embed_dims", "depths"):
            numbers[f"tower {field}"] = getattr(tower, field)
            found[f"tower {field}"] = getattr(self.tower, field)
        wrong = [f"{k} {found[k]} instead of {v}" for k, v in numbers.items() if found[k] != v]
        if wrong:
            raise CheckpointError(f"{self.folder} is no {name}: {'; '.join(wrong)}")


def is_fast_vlm_folder(path: Path) -> bool:
    """Whether a path is a folder in one of the published layouts."""
    config = path / CONFIG
    if not config.is_file():
        return False
    kind = read_json(config).get("model_type")
    return isinstance(kind, str) and kind in MODEL_TYPES


def read_source(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], image_size: int | None = None
) -> Source:
    """Reads what a folder holds.

    Args:
        folder: with `config.json`.
        shapes: name -> shape of every tensor.
        image_size: side of the pictures, where it is to be another than the folder's.

    Raises:
        CheckpointError: a field is missing, or says something that is not supported.
    """
    path = folder / CONFIG
    fields = Fields(read_json(path), str(path))
    kind = fields.needed("model_type")
    if kind not in MODEL_TYPES:
        fields.expect("model_type", *MODEL_TYPES)
    layout = MODEL_TYPES[kind]
    inside = {n.removeprefix(layout.tower): s for n, s in shapes.items() if _in(layout, n)}
    text, tower, size = (_read_apple if layout is APPLE else _read_transformers)(fields, inside)
    with reading(text.source):
        decoder = decoder_config(text.values).with_tied(HEAD not in shapes)
        check_layers(decoder, shapes, layout.body)
    fused = any(".reparam_conv." in name for name in inside)
    return Source(folder, layout, fields.values, decoder, tower, fused, image_size or size)


def _in(layout: Layout, name: str) -> bool:
    return name.startswith(layout.tower)


def _read_apple(
    fields: Fields, tower_shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Fields, FastVLMConfig, int]:
    """Text config, tower and picture size of Apple's folder."""
    name = str(fields.needed("mm_vision_tower"))
    size = name.removeprefix(APPLE_TOWER)
    if not name.startswith(APPLE_TOWER) or not size.isdigit():
        fields.expect("mm_vision_tower", f"{APPLE_TOWER}{IMAGE_SIZE}")
    whole_number(int(size), f"{fields.source}: mm_vision_tower", most=LARGEST_SIDE)
    fields.needed("mm_hidden_size")
    fields.needed("mm_projector_type")
    fields.expect("mm_projector_type", "mlp2x_gelu")
    fields.expect("mm_use_im_start_end", False)
    fields.expect("mm_patch_merge_type", "flat")
    fields.expect("image_aspect_ratio", "pad")
    return fields, tower_from_apple(tower_shapes), int(size)


def _read_transformers(
    fields: Fields, tower_shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Fields, FastVLMConfig, int]:
    """Text config, tower and picture size of a Hugging Face folder."""
    fields.expect("projector_hidden_act", "gelu")
    fields.expect("multimodal_projector_bias", True)
    fields.expect("vision_feature_select_strategy", "full")
    fields.expect("vision_feature_layer", -1)
    tower = tower_from_timm(fields.part("vision_config"))
    return fields.part("text_config"), tower, _picture_size(fields, tower)


def _picture_size(fields: Fields, tower: FastVLMConfig) -> int:
    """From the picture processor's file, else from the number of rows a picture makes."""
    path = Path(fields.source).with_name("preprocessor_config.json")
    settings = Fields(read_json_if_there(path), str(path))
    crop = settings.values.get("crop_size")
    inside = settings.part("crop_size") if isinstance(crop, Mapping) else settings
    side = inside.whole("height" if isinstance(crop, Mapping) else "crop_size", 1, LARGEST_SIDE)
    if side:
        return side
    rows = fields.whole("image_seq_length", 0, LARGEST_SIDE)
    if rows and rows != UNSET_IMAGE_LENGTH:
        return math.isqrt(rows) * tower.total_stride
    return IMAGE_SIZE
