"""Pixel statistics of each variant and weight source."""

from __future__ import annotations

import pytest

from dl_techniques import FastVLM, MobileOne
from dl_techniques.checkpoints.vision.sources import preprocessing_of, timm_fields, timm_name
from dl_techniques.data.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
)
from dl_techniques.errors import VariantError

PLAIN = ((0.0,) * 3, (1.0,) * 3)
CLIP, IMAGENET = (CLIP_MEAN, CLIP_STD), (IMAGENET_MEAN, IMAGENET_STD)
MCLIP2, APPLE = "mclip2_dfndr2b", "apple_mobileclip"


def found(variant: str, source: str = "", config: dict[str, object] | None = None) -> Preprocessing:
    """What a network with weights of a source gets."""
    kind = MobileOne if variant.startswith("mobileone") else FastVLM
    default = Preprocessing.of(kind.MODEL_VARIANTS[variant])
    return preprocessing_of(default, variant, source, config or {})


@pytest.mark.parametrize(
    ("variant", "source", "size", "statistics", "crop", "interpolation"),
    [
        *((f"fastvit_{s}", "", 256, IMAGENET, 0.9, "bicubic") for s in ("t8", "sa12", "sa36")),
        ("fastvit_ma36", "", 256, IMAGENET, 0.95, "bicubic"),
        ("mci0", "", 256, PLAIN, 0.95, "bicubic"),
        ("mci0", MCLIP2, 256, PLAIN, 1.0, "bicubic"),
        ("mci2", MCLIP2, 256, PLAIN, 0.95, "bicubic"),
        *((f"mci{i}", APPLE, 256, PLAIN, 1.0, "bilinear") for i in range(3)),
        ("mci3", MCLIP2, 256, CLIP, 0.95, "bicubic"),
        ("mci4", MCLIP2, 256, CLIP, 0.95, "bicubic"),
        ("fastvithd", "fastvlm", 1024, PLAIN, 1.0, "bicubic"),
        ("mobileone_s0", "", 224, IMAGENET, 0.875, "bilinear"),
        ("mobileone_s3", "", 224, IMAGENET, 0.9, "bilinear"),
    ],
)
def test_each_source_has_its_pixels(
    variant: str,
    source: str,
    size: int,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    crop: float,
    interpolation: str,
) -> None:
    expected = Preprocessing(size, *statistics, crop, interpolation)
    assert found(variant, source) == expected


def test_a_folders_config_is_right_about_everything() -> None:
    said = {"tag": MCLIP2, "mean": CLIP_MEAN, "std": CLIP_STD, "input_size": (3, 320, 320)}
    expected = Preprocessing(320, *CLIP, 1.0, "bicubic")
    assert found("mci0", "", {"pretrained_cfg": said}) == expected


def test_what_is_written_for_timm_is_read_back() -> None:
    pixels = Preprocessing(192, CLIP_MEAN, CLIP_STD, 0.8, "bilinear")
    assert found("mci1", APPLE, {"pretrained_cfg": timm_fields(pixels)}) == pixels


def test_timms_names() -> None:
    assert [timm_name(n) for n in ("fastvit_t8", "mci2", "fastvithd", "mobileone_s4")] == [
        "fastvit_t8", "fastvit_mci2", "fastvit_mci3", "mobileone_s4",
    ]  # fmt: skip
    with pytest.raises(VariantError, match="'nano'.*save_to_preset"):
        timm_name("nano")
