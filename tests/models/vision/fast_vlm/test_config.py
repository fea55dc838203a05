"""The numbers of a network, and the files that hold them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm import config as config_module
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig, load_variants

# dims, depths, heads, mlp ratio, dropout, drop path, SE
HOUSE = {
    "nano": ((24, 48, 96), (1, 2, 3), (1, 2, 3), 2.0, 0.0, 0.0, False),
    "tiny": ((32, 64, 128), (2, 3, 4), (1, 2, 4), 3.0, 0.0, 0.05, False),
    "small": ((48, 96, 192), (3, 4, 6), (2, 3, 6), 4.0, 0.1, 0.1, False),
    "base": ((64, 128, 256), (3, 4, 6), (2, 4, 8), 4.0, 0.1, 0.1, False),
    "large": ((96, 192, 384), (4, 6, 8), (3, 6, 12), 4.0, 0.1, 0.2, True),
    "huge": ((128, 256, 512), (6, 8, 12), (4, 8, 16), 4.0, 0.1, 0.3, True),
}


@pytest.mark.parametrize("name", HOUSE)
def test_variants_hold_the_agreed_numbers(name: str) -> None:
    c = FastVLMConfig.from_variant(name)
    found = (c.embed_dims, c.depths, c.num_heads, c.mlp_ratio, c.dropout_rate, c.drop_path_rate)
    assert (*found, c.use_se) == HOUSE[name]
    assert c.stage_mixers == ("repmixer", "repmixer", "attention")
    assert [c.has_position(i) for i in range(3)] == [False, False, True]
    assert c.total_stride == 16


def test_variants_are_listed_from_small_to_large() -> None:
    names = [name for name in load_variants() if name in HOUSE]
    assert names == list(HOUSE)


def test_apples_networks_are_the_same_class_with_other_numbers() -> None:
    t8, hd = (FastVLMConfig.from_variant(n) for n in ("fastvit_t8", "fastvithd"))
    assert (t8.total_stride, hd.total_stride) == (32, 64)
    assert (len(t8.depths), len(hd.depths)) == (4, 5)
    assert hd.heads(3) == 24 and hd.heads(4) == 48
    assert hd.attention_norm == "layer" and not hd.stem_scale_branch and hd.tail_expansion == 2


@pytest.mark.parametrize(
    ("typo", "meant"), [("bse", "base"), ("tinny", "tiny"), ("fastvit-hd", "fastvithd")]
)
def test_a_typo_names_the_nearest_variant(typo: str, meant: str) -> None:
    with pytest.raises(VariantError, match=f"'{typo}': did you mean '{meant}'"):
        FastVLMConfig.from_variant(typo)


def test_an_unlike_name_lists_all() -> None:
    with pytest.raises(VariantError, match="'xyzzy': known: .*nano.*huge"):
        FastVLMConfig.from_variant("xyzzy")


def test_an_unknown_key_names_file_and_nearest_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("embed_dim: [8, 16]\n", encoding="utf-8")
    with pytest.raises(VariantError, match="mine.yaml: unknown key 'embed_dim'.*'embed_dims'"):
        config_module._read(path)
    path.write_text("zzz: 1\n", encoding="utf-8")
    with pytest.raises(VariantError, match="unknown key 'zzz'; known: embed_dims"):
        config_module._read(path)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "", "just words"])
def test_a_variant_file_must_hold_a_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(VariantError, match="mine.yaml.*mapping"):
        config_module._read(path)


def test_a_variant_file_becomes_a_config(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("embed_dims: [32, 64]\ndepths: [1, 2]\nuse_se: true\n", encoding="utf-8")
    config = config_module._read(path)
    assert config.embed_dims == (32, 64) and config.total_stride == 8
    assert config.heads(1) == 2 and config.has_se(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depths": (1, 2)}, "depths has 2 entries for 3 stages"),
        ({"num_heads": (1, 2, 3, 4)}, "num_heads has 4 entries"),
        ({"mixers": ("repmixer",)}, "mixers has 1 entries"),
        ({"mlp_ratio": (4.0, 2.0)}, "mlp_ratio has 2 entries for 3 stages.*one number, or one"),
        ({"mixers": ("repmixer", "repmixer", "convmixer")}, "'convmixer'"),
        ({"attention_norm": "group"}, "'group'"),
        ({"num_heads": (1, 1, 7)}, "stage 2 has 256 channels.*7 heads"),
        ({"embed_dims": (4, 8, 16)}, "stage 2 has 16 channels.*0 heads"),
    ],
)
def test_disagreeing_numbers_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(VariantError, match=message):
        FastVLMConfig(**values)  # type: ignore[arg-type]


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    config = FastVLMConfig(depths=(2, 3, 4), drop_path_rate=0.4)
    rates = [rate for stage in range(3) for rate in config.drop_path_rates(stage)]
    np.testing.assert_allclose(rates, np.linspace(0, 0.4, 9))
    single = FastVLMConfig(embed_dims=(32,), depths=(1,), drop_path_rate=0.4)
    assert single.drop_path_rates(0) == [0.0]


def test_one_mlp_ratio_or_one_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mlp_ratio: [4.0, 3.0, 2.5]\n", encoding="utf-8")
    config = config_module._read(path)
    assert config.mlp_ratios == (4.0, 3.0, 2.5)
    assert FastVLMConfig(mlp_ratio=3.0).mlp_ratios == (3.0, 3.0, 3.0)
    assert FastVLMConfig(mlp_ratio=4.0).same_network(FastVLMConfig(mlp_ratio=(4.0, 4.0, 4.0)))
    assert not config.same_network(FastVLMConfig(mlp_ratio=4.0))


def test_squeeze_excitation_stages() -> None:
    assert FastVLMConfig(use_se=True).has_se(1) and not FastVLMConfig().has_se(1)
    chosen = FastVLMConfig(se_stages=(2,))
    assert [chosen.has_se(i) for i in range(3)] == [False, False, True]


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FastVLMConfig().num_classes = 2  # type: ignore[misc]
