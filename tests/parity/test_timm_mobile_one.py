"""MobileOne: stem, every stage and the logits against timm; Apple's names too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dl_techniques import MobileOne
from dl_techniques.checkpoints.vision import COUNTERS, network_map, recognise
from dl_techniques.checkpoints.weight_map import check_coverage, export_weights, keras_array
from tests.helpers import numbers, relative_difference
from tests.parity.apple_names import apple_mobile_one
from tests.parity.published import SIDES, Published, check_fused_weights

TOLERANCE = 1e-5
FULL = pytest.mark.full
NETWORKS = [
    ("mobileone_s0", SIDES),
    ("mobileone_s1", SIDES),
    pytest.param(("mobileone_s1", (224, 224)), marks=FULL),
    pytest.param(("mobileone_s4", (75, 53)), marks=FULL),
]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda p: f"{p[0]}-{p[1][0]}x{p[1][1]}")
def published(request: pytest.FixtureRequest, publish_once: Callable[..., Published]) -> Published:
    """One of timm's networks."""
    return publish_once(*request.param)


@pytest.fixture(scope="module")
def branched(published: Published) -> MobileOne:
    """Our network from its training form; the last test of the module fuses it."""
    return MobileOne.from_preset(published.train)


def check_answers(network: MobileOne, published: Published) -> None:
    """Stem, stages, logits."""
    found = [*network.extract_features(published.pictures), network(published.pictures)]
    wanted = [*published.stages, published.answers["logits"]]
    assert len(found) == len(wanted) == 6
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        error = relative_difference(ours, theirs)
        assert error < TOLERANCE, (published.name, place, error)


def test_training_form(branched: MobileOne, published: Published) -> None:
    assert not any(branched.form_state().values()) and branched.name == published.name
    check_answers(branched, published)


def test_fused_form_and_apples_names(published: Published, branched: MobileOne) -> None:
    network = MobileOne.from_preset(published.fused)
    assert network.reparameterized
    check_answers(network, published)
    forms = ((branched, published.train_state), (network, published.fused_state))
    for ours, state in forms:
        apple, entries = apple_mobile_one(state), network_map(ours, "apple")
        layout = recognise(apple)
        assert (layout.naming.words, layout.fused) == ("apple", ours.reparameterized)
        check_coverage(apple, entries, [COUNTERS])
        for name, entry in entries.items():
            array = keras_array(entry, apple[name].numpy())
            np.testing.assert_array_equal(array, numbers(entry.variable))


def test_our_fusing_gives_their_fused_weights(branched: MobileOne, published: Published) -> None:
    branched.reparameterize()
    ours = dict(export_weights(network_map(branched, "timm")))
    check_fused_weights(ours, published.fused_state, TOLERANCE)
