"""Published networks: counts of numbers and multiply-adds, as their authors' code has them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dl_techniques import FastVLM
from tools.variant_table import count_macs

# trained with classifier, fused with classifier, fused without it, GMACs fused at 256 px, classes
PUBLISHED = {
    "fastvit_t8": (4_026_232, 3_996_040, 3_227_040, 0.685, 1000),
    "fastvit_t12": (7_553_704, 7_508_840, 6_483_840, 1.391, 1000),
    "fastvit_s12": (9_473_576, 9_428_712, 8_403_712, 1.794, 1000),
    "fastvit_sa12": (11_580_968, 11_545_320, 10_520_320, 1.937, 1000),
    "fastvit_sa24": (21_554_216, 21_501_288, 20_476_288, 3.762, 1000),
    "fastvit_sa36": (31_527_464, 31_457_256, 30_432_256, 5.587, 1000),
    "fastvit_ma36": (44_068_004, 43_984_632, 42_767_632, 7.815, 1000),
    "mci0": (11_406_976, 11_357_504, 10_832_704, 2.385, 512),
    "mci1": (21_541_632, 21_461_056, 20_936_256, 4.658, 512),
    "mci2": (35_815_232, 35_702_992, 35_047_120, 7.834, 512),
    "mci3": (125_235_648, 125_074_272, 122_714_208, 14.812, 768),
    "fastvithd": (125_235_648, 125_074_272, 122_714_208, 14.812, 768),
    "mci4": (321_784_832, 321_569_664, 318_423_168, 27.758, 768),
}
QUICK = ("fastvit_t8", "fastvit_t12", "fastvit_sa12", "mci0")
MAPS = {"fastvit_t8": (8, 8, 768), "fastvit_ma36": (8, 8, 1216), "mci2": (8, 8, 1280)}
MAPS |= {"mci3": (4, 4, 3072), "mci4": (4, 4, 4096)}


def trained(network: Any) -> int:
    """Numbers that training moves; statistics of norms are none of them."""
    return sum(math.prod(v.shape) for v in network.trainable_variables)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.full) for n in PUBLISHED]
)
def test_counts(name: str) -> None:
    branched, fused, headless, gmacs, classes = PUBLISHED[name]
    network = FastVLM.from_variant(name, input_shape=(256, 256, 3))
    assert network.output_shape == (None, classes)
    assert trained(network) == branched
    network.reparameterize()
    assert trained(network) == fused
    assert trained(network) - trained(network.head[-1]) == headless
    assert count_macs(network, (256, 256, 3)) == pytest.approx(gmacs * 1e9, rel=0.01)
    if name in MAPS:
        assert network.head[0].input.shape[1:] == MAPS[name]


def test_squeeze_and_excitation_in_late_downsamples() -> None:
    network = FastVLM.from_variant("mci0", include_top=False)
    squeezed = [d.large_kernel.se for d in network.downsample_layers]
    assert squeezed[0] is None
    widths = [tuple(se.reduce.kernel.shape) for se in squeezed[1:]]
    assert widths == [(256, 64), (512, 128)]
