"""What pixels weights were trained on: the variant's, unless their source says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.config_files import CONFIG, read_json_if_there
from dl_techniques.data.damage import of_kind, reading, whole_number
from dl_techniques.data.preprocessing import Preprocessing
from dl_techniques.errors import VariantError

SOURCES: dict[str, dict[str, dict[str, Any]]] = {
    # Apple's own transform: the shorter side becomes 256 pixels at once, then the centre is cut.
    "apple_mobileclip": {
        name: {"crop_fraction": 1.0, "interpolation": "bilinear"}
        for name in ("mci0", "mci1", "mci2")
    },
    "mclip2_dfndr2b": {"mci0": {"crop_fraction": 1.0}},
}
"""Source -> variant -> fields that differ from the variant's file."""
TIMM_FIELDS = {
    "mean": "mean",
    "std": "std",
    "crop_pct": "crop_fraction",
    "interpolation": "interpolation",
}


def preprocessing_of(
    default: Preprocessing, variant: str, source: str, config: Mapping[str, Any]
) -> Preprocessing:
    """The numbers for one network with weights of one source.

    Args:
        default: the variant's own.
        variant: the network's name.
        source: what the layout says the weights were made for.
        config: `config.json` beside the weights; its `pretrained_cfg` is right about everything.
    """
    values = default.get_config()
    values |= SOURCES.get(source, {}).get(variant, {})
    said = of_kind(config.get("pretrained_cfg") or {}, dict, f"{CONFIG}: pretrained_cfg")
    values |= SOURCES.get(str(said.get("tag")), {}).get(variant, {})
    values |= {ours: said[theirs] for theirs, ours in TIMM_FIELDS.items() if theirs in said}
    if "input_size" in said:
        size = of_kind(said["input_size"], list, f"{CONFIG}: pretrained_cfg.input_size")
        values["size"] = whole_number(size[-1] if size else None, f"{CONFIG}: input_size")
    with reading(f"{CONFIG}: pretrained_cfg"):
        return Preprocessing.from_config(values)


def timm_fields(preprocessing: Preprocessing) -> dict[str, Any]:
    """The same numbers as timm's `pretrained_cfg` has them."""
    values = preprocessing.get_config()
    size = preprocessing.size
    fields = {theirs: values[ours] for theirs, ours in TIMM_FIELDS.items()}
    return {"input_size": [3, size, size], "fixed_input_size": False, **fields}


def config_beside(source: Path) -> dict[str, Any]:
    """`config.json` of a folder of weights; of a single file there is none.

    Raises:
        CheckpointError: it is there but damaged.
    """
    return read_json_if_there(source / CONFIG)


TIMM_NAMES = {
    **{f"mci{i}": f"fastvit_mci{i}" for i in (0, 1, 2, 3, 4)},
    "fastvithd": "fastvit_mci3",
    **{f"efficientnet_lite{i}": f"tf_efficientnet_lite{i}" for i in (0, 1, 2)},
}
"""Variants whose names differ from timm's."""


def timm_name(variant: str) -> str:
    """timm's name of a variant.

    Raises:
        VariantError: timm has no such network.
    """
    name = TIMM_NAMES.get(variant, variant)
    if not name.startswith(("fastvit_", "mobileone_", "tf_efficientnet_lite")):
        raise VariantError(
            f"timm has no network like {variant!r}, so its weights cannot be written for it; use "
            "save_to_preset(), or one of the variants fastvit_*, mci*, fastvithd, mobileone_*, "
            "efficientnet_lite*"
        )
    return name
