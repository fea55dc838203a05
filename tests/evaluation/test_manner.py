"""How an answer is put, what it names, and whether that is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.evaluation.manner import is_right, is_told, manner, names, tell, things
from dl_techniques.evaluation.records import QuestionRecord
from recipes.demo.photos.articles import one
from recipes.demo.photos.names import all_names
from recipes.demo.photos.templates import Facts, manner_of, turns

pytestmark = pytest.mark.once
NO_PICTURE = Path("none.png")


def record(
    answer: str, *accepted: str, refusal: bool = False, told: tuple[str, ...] = ()
) -> QuestionRecord:
    return QuestionRecord(NO_PICTURE, "?", answer, None, accepted, refusal, told)


@pytest.mark.parametrize("best", [0.9, 0.72, 0.65, 0.45, 0.3])
@pytest.mark.parametrize("person", [None, True])
def test_the_recipe_speaks_as_it_is_understood(best: float, person: bool | None) -> None:
    """Every template's answer is told as what it was made as, and names what it was made of."""
    rng = np.random.default_rng(0)
    for name in all_names()[::3]:
        other = "zebra" if name != "zebra" else "ostrich"
        facts = Facts(((name, best), (other, (1 - best) * 0.9)), person=person, sure=("toaster",))
        for kind, _, answer in turns(rng, facts):
            if kind in ("name", "caption", "contents"):
                assert manner(answer) == manner_of(facts), answer
                if manner_of(facts) != "refused":
                    assert is_right(answer, record(name, name)), answer
                if manner_of(facts) == "hedged":
                    assert names(answer)[-1] == other
                elif (
                    best >= 0.7
                    and kind == "caption"
                    and name not in ("toaster", "mortar and pestle")
                ):
                    told = [thing for group in things(answer) for thing in group]
                    assert ("person" in told) == (person is True and name not in _PEOPLE), answer
            elif kind == "is_there" and answer == "maybe":
                assert manner(answer) == "hedged"


_PEOPLE = ("face", "baseball player", "groom", "scuba diver", "person")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("dog", "plain"),
        ("It may be a dog.", "hedged"),
        ("This might be a dog or a wolf", "hedged"),
        ("Perhaps a dog", "hedged"),
        ("I am not sure what this is.", "refused"),
        ("I'm not sure what this is.", "refused"),
        ("I don't know.", "refused"),
        ("I cannot tell. There is a person in it.", "refused"),
        ("I am not sure, but it may be a dog.", "hedged"),
        ("not sure", "refused"),
        ("A drawing of a maypole.", "plain"),
        ("", "plain"),
    ],
)
def test_manner(answer: str, told: str) -> None:
    assert manner(answer) == told


def test_what_is_named() -> None:
    assert names("It may be a dog, a wolf or a fox.")[1:] == ("dog", "wolf", "fox")
    assert names("This is an umbrella") == ("umbrella",)
    assert names("I am not sure what this is. There is a person in it.") == ()
    assert things("I am not sure what this is. There is a person in it.") == [("person",)]
    assert things("a dog, a person and scissors") == [("dog",), ("person",), ("scissors",)]
    assert things("") == [("",)]


def test_right_is_the_first_name() -> None:
    wolf = record("wolf", "timber wolf")
    assert is_right("A photo of a wolf.", wolf) and is_right("timber wolf", wolf)
    assert is_right("It may be a wolf or a dog.", wolf)
    assert not is_right("It may be a dog or a wolf.", wolf)
    assert not is_right("I am not sure what this is.", wolf)
    assert not is_right("wolfhound", wolf)
    assert is_right("mortar and pestle", record("mortar and pestle", "mortar"))


def test_a_refusal_is_right_in_any_words() -> None:
    unknown = record("I am not sure what this is.", refusal=True)
    assert is_right("I don't know what that is.", unknown)
    assert is_right("I am not sure what this is. There is a person in it.", unknown)
    assert not is_right("It may be a dog.", unknown)
    assert not is_right("dog", unknown)


def test_without_further_names_the_answer_must_be_exact() -> None:
    assert is_right("Yes.", record("yes"))
    assert not is_right("a yes", record("yes"))


def test_shares_and_rates() -> None:
    told = tell(
        ["wolf", "dog", "It may be a dog or a wolf.", "I am not sure what this is."],
        [record("wolf", "timber wolf")] * 4,
    )
    assert (told.accepted, told.plain, told.plain_right) == (0.25, 0.5, 0.5)
    assert (told.hedged, told.hedged_right, told.refused) == (0.25, 1.0, 0.25)
    assert told.false_yes is None and told.things_right is None
    assert "false_yes" not in told.as_dict()


def test_baselines_are_measured_as_the_answers_are() -> None:
    records = [
        QuestionRecord(NO_PICTURE, "?", name, "the hound", accepted)
        for name, accepted in (("dog", ("hound",)), ("dog", ("hound",)), ("cat", ("kitty",)))
    ]
    told = tell(["dog", "dog", "kitty"], records, ["a cat", "hound", "kitty"])
    assert (told.accepted, told.majority) == (1.0, 2 / 3)
    assert (told.question_only, told.shuffled) == (2 / 3, 2 / 3)
    assert tell(["dog"] * 3, records).shuffled is None


def test_wrong_yes_is_counted_where_no_is_right() -> None:
    told = tell(["yes", "yes", "no", "Yes."], [record("yes"), *[record("no")] * 3])
    assert (told.false_yes, told.asked_no, told.accepted) == (2 / 3, 3, 0.5)


def test_things_that_are_there() -> None:
    here = record("A photo of a dog.", told=("dog", "person", "sea"))
    told = tell(
        ["A photo of a dog. There is a car in it.", "It may be a cat or a dog."], [here] * 2
    )
    assert (told.things, told.things_right) == (3, 2 / 3)


def test_sets_of_exact_answers_are_not_told() -> None:
    assert not is_told([record("yes"), record("red"), record("no")])
    assert is_told([record("yes"), record("no")])
    assert is_told([record("dog", "hound")]) and is_told([record("x", refusal=True)])


def test_none_and_different_numbers_are_told() -> None:
    with pytest.raises(ValueError, match="expected at least one answer"):
        tell([], [])
    with pytest.raises(ValueError):
        tell(["a"], [])


def test_articles_are_no_part_of_names() -> None:
    for name in all_names():
        assert is_right(one(name), record(name, "x")), name
