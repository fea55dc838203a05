"""Names in sentences are English."""

from __future__ import annotations

import pytest

from recipes.demo.photos.articles import MASS, PLURAL, be, one
from recipes.demo.photos.names import all_names

pytestmark = pytest.mark.once
SINGULAR_S = frozenset(
    "abacus,asparagus,bus,chest of drawers,compass,dress,glass,"
    "hippopotamus,hourglass,ibis,lotus,magnifying glass,nautilus,octopus,platypus,praying mantis,"
    "rhinoceros".split(",")
)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("euphonium", "a euphonium"),
        ("unicycle", "a unicycle"),
        ("hourglass", "an hourglass"),
        ("mp3 player", "an mp3 player"),
        ("ibis", "an ibis"),
        ("scissors", "scissors"),
        ("broccoli", "broccoli"),
    ],
)
def test_articles(name: str, told: str) -> None:
    assert one(name) == told


def test_plurals_and_mass_names_are_names() -> None:
    assert set(all_names()) >= PLURAL | MASS
    assert not PLURAL & MASS


def test_what_ends_like_a_plural_is_one() -> None:
    ends = {name for name in all_names() if name.endswith("s")} - SINGULAR_S
    assert ends == PLURAL


def test_verbs() -> None:
    assert (be("jeans"), be("bread"), be("dog")) == ("are", "is", "is")
