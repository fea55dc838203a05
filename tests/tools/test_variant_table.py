"""Multiply-adds counted from shapes, against counts by hand."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from tools.variant_table import count_macs, main, measure, table

pytestmark = pytest.mark.once


class Block(keras.layers.Layer):
    """A layer of layers that tells its output shape without calling them."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = keras.layers.DepthwiseConv2D(3, padding="same")
        self.channels = keras.layers.Dense(5)

    def build(self, input_shape: Any) -> None:
        self.spatial.build(input_shape)
        self.channels.build(input_shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.channels(self.spatial(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], 5)


def test_counts_convolutions_depthwise_and_dense() -> None:
    x = keras.Input((None, None, 3))
    y = keras.layers.Conv2D(8, 3, 2, padding="same")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", groups=4)(y)
    y = Block()(keras.layers.BatchNormalization()(y))
    y = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(y))
    model = keras.Model(x, y)
    positions = 16 * 8
    expected = positions * (27 * 8 + 9 * 2 * 8 + 9 * 8 + 8 * 5) + 5 * 10
    assert count_macs(model, (32, 16, 3)) == expected
    assert count_macs(model, (32, 16, 3)) == expected  # the first count left nothing behind


def test_counts_attention() -> None:
    from dl_techniques import FastVLM

    model = FastVLM.from_variant("nano", include_top=False)
    small = count_macs(model, (64, 64, 3))
    attention = small - count_macs(model, (32, 32, 3)) * 4
    # Everything but the products of attention (3 layers) grows with the area alone.
    positions = (64 // model.total_stride) ** 2
    quarter = (32 // model.total_stride) ** 2
    by_hand = 3 * 2 * model.feature_dim * (positions**2 - 4 * quarter**2)
    assert attention == by_hand


def test_fusing_saves_work() -> None:
    from dl_techniques import FastVLM

    model = FastVLM.from_variant("nano", include_top=False, input_shape=(64, 64, 3))
    branched = count_macs(model, (64, 64, 3))
    model.reparameterize()
    assert count_macs(model, (64, 64, 3)) < branched


def test_table_is_aligned() -> None:
    lines = table([("name", "n"), ("a", "1000")]).splitlines()
    assert lines == ["| name | n    |", "|------|------|", "| a    | 1000 |"]


def test_prints_a_row_per_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nano"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    assert row.split("|")[1].strip() == "nano"
    assert header.count("|") == row.count("|")


def test_published_counts() -> None:
    # FastViT-T8 at 256 px: 0.7 GMACs and 4.0 M parameters with its classifier of 768 x 1000.
    row = measure("fastvit_t8")
    assert row[:4] == ("fastvit_t8", "256 x 256", "768", "32")
    assert float(row[5]) + 0.769 == pytest.approx(4.0, abs=0.05)
    assert float(row[6]) == pytest.approx(0.7, abs=0.05)
