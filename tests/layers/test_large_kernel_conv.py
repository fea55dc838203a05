"""The large-kernel convolution and the patch embedding."""

from __future__ import annotations

from typing import Any

import pytest

from dl_techniques.layers.large_kernel_conv import LargeKernelConv, PatchEmbedding
from tests.helpers import check_forms, check_layer

SHAPE = (1, 7, 6, 8)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with SE": {"use_se": True},
    "linear": {"use_activation": False},
}
EACH = pytest.mark.parametrize("kind", KINDS)


@EACH
@pytest.mark.parametrize("fused", [False, True])
def test_layer_contract(kind: str, fused: bool) -> None:
    check_layer(LargeKernelConv(16, **KINDS[kind], reparameterized=fused), SHAPE)


@EACH
def test_forms(kind: str) -> None:
    check_forms(LargeKernelConv(16, **KINDS[kind]), SHAPE)


def test_forms_of_other_sizes() -> None:
    check_forms(LargeKernelConv(8, 5, 1, strides=1), SHAPE)


@pytest.mark.parametrize("fused", [False, True])
def test_patch_embedding_contract(fused: bool) -> None:
    check_layer(PatchEmbedding(16, use_se=True, reparameterized=fused), SHAPE)


def test_patch_embedding_forms() -> None:
    check_forms(PatchEmbedding(16), SHAPE)


def test_filters_must_fit() -> None:
    with pytest.raises(ValueError, match="filters=12 for 8 channels"):
        LargeKernelConv(12).build(SHAPE)
