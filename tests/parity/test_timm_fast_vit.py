"""FastViT and MCi: every stage, the features and the logits against timm, from timm's own files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.checkpoints.vision import network_map
from dl_techniques.checkpoints.weight_map import export_weights
from tests.helpers import numbers, relative_difference
from tests.parity.published import SIDES, Published, check_fused_weights

TOLERANCE = 1e-5
DEEP = 1e-4  # 44 blocks: rounding grows
FULL = pytest.mark.full
NETWORKS = [
    ("fastvit_t8", SIDES),
    ("fastvit_sa12", SIDES),
    ("fastvit_mci0", SIDES),
    pytest.param(("fastvit_t8", (75, 53)), marks=FULL),
    pytest.param(("fastvit_sa12", (75, 53)), marks=FULL),
    pytest.param(("fastvit_mci0", (75, 53)), marks=FULL),
    pytest.param(("fastvit_t8", (256, 256)), marks=FULL),
    pytest.param(("fastvit_sa12", (256, 256)), marks=FULL),
    pytest.param(("fastvit_mci0", (256, 256)), marks=FULL),
    pytest.param(("fastvit_mci3", (256, 256)), marks=FULL),
]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda p: f"{p[0]}-{p[1][0]}x{p[1][1]}")
def published(request: pytest.FixtureRequest, publish_once: Callable[..., Published]) -> Published:
    """One of timm's networks."""
    return publish_once(*request.param)


@pytest.fixture(scope="module")
def branched(published: Published) -> FastVLM:
    """Our network from its training form; the last test of the module fuses it."""
    return FastVLM.from_preset(published.train)


def check_answers(network: FastVLM, published: Published) -> None:
    """Every stage, the features behind the tail, the logits."""
    tolerance = DEEP if "mci3" in published.name else TOLERANCE
    maps = network.extract_features(published.pictures)
    found = [*maps[1:], network.tail(maps[-1]), network(published.pictures)]
    wanted = [*published.stages, published.answers["features"], published.answers["logits"]]
    assert len(found) == len(wanted) == len(network.config.depths) + 2
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        error = relative_difference(ours, theirs)
        assert error < tolerance, (published.name, place, error)


def test_training_form(branched: FastVLM, published: Published) -> None:
    assert not branched.reparameterized and not any(branched.form_state().values())
    assert branched.name == f"fast_vlm_{published.name.replace('fastvit_mci', 'mci')}"
    check_answers(branched, published)


def test_fused_form(published: Published) -> None:
    network = FastVLM.from_preset(published.fused)
    assert network.reparameterized and not network.folded
    check_answers(network, published)


def test_our_fusing_gives_their_fused_weights(branched: FastVLM, published: Published) -> None:
    branched.reparameterize()
    ours = dict(export_weights(network_map(branched, "timm")))
    check_fused_weights(ours, published.fused_state, TOLERANCE)
    check_answers(branched, published)


def test_a_changed_weight_is_seen(publish_once: Callable[..., Published]) -> None:
    """The comparison itself: one layer scale off by a tenth is more than the tolerance."""
    published = publish_once("fastvit_t8")
    network = FastVLM.from_preset(published.train)
    gamma = network.stages[3].blocks[1].layer_scale.gamma
    gamma.assign(numbers(gamma).astype("float32") * np.float32(1.1))
    with pytest.raises(AssertionError, match="fastvit_t8"):
        check_answers(network, published)
