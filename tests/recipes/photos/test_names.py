"""Every class has one everyday name, and the tables agree about it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from recipes.demo.draw.clothing import CLASSES, FOLDERS
from recipes.demo.photos.names import (
    FIGURES,
    IMAGENET,
    PEOPLE,
    accepted_names,
    all_names,
    class_names,
    imagenet_names,
)

pytestmark = pytest.mark.once
SENSIBLE = re.compile(r"[a-z][a-z0-9' -]*[a-z]")


def test_imagenet_is_whole_and_in_order() -> None:
    rows = [line.split("\t") for line in IMAGENET.read_text(encoding="utf-8").splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(1000))
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert {len(row) for row in rows} == {4}
    assert (imagenet_names()[207], imagenet_names()[404]) == ("dog", "airplane")


def test_names_are_sensible_and_unique() -> None:
    names = all_names()
    assert all(SENSIBLE.fullmatch(name) for name in names)
    spelled = Counter(re.sub("[ '-]", "", name) for name in names)
    assert max(spelled.values()) == 1, [s for s, n in spelled.items() if n > 1]
    doubled = {name for name in names if f"{name}s" in names or f"{name}es" in names}
    assert not doubled


def test_accepted_names_begin_with_the_name_and_have_no_other_case() -> None:
    for (set_name, label), name in class_names().items():
        accepted = accepted_names(set_name, label)
        assert accepted[0] == name
        assert len(accepted) == len(set(accepted)) and all(a == a.lower() for a in accepted)
    assert {"plane", "airliner", "airplanes"} <= set(accepted_names("caltech", "airplanes"))
    assert {"person", "man", "woman"} <= set(accepted_names("caltech", "Faces"))


def test_no_class_accepts_what_another_of_its_set_is_called_unless_it_is_one() -> None:
    """An accepted name must not make a wrong answer right."""
    kinds = {
        ("caltech", "schooner", "sailboat"), ("grocery", "Oat-Milk", "milk"),
        ("grocery", "Sour-Milk", "milk"), ("grocery", "Soy-Milk", "milk"),
        ("grocery", "Oatghurt", "yogurt"), ("grocery", "Soyghurt", "yogurt"),
        ("caltech", "ketch", "sailing ship"), ("caltech", "snoopy", "dog"),
    }  # fmt: skip
    for set_name, label in class_names():
        others = {n for (s, _), n in class_names().items() if s == set_name}
        wrong = set(accepted_names(set_name, label)[1:]) & others
        told = {name for name in wrong if (set_name, label, name) not in kinds}
        assert not told, (set_name, label, told)


def test_clothes_are_called_as_the_drawn_recipe_calls_them() -> None:
    for folder, name in zip(FOLDERS, CLASSES, strict=True):
        assert class_names()["clothing", folder] == name


def test_people_and_figures_are_names() -> None:
    assert set(all_names()) >= PEOPLE | FIGURES


def test_an_unknown_class_is_told() -> None:
    with pytest.raises(ValueError, match="caltech has no class 'unicorn'"):
        accepted_names("caltech", "unicorn")
