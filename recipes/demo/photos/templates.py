"""The English of photographs: from what is known of one to questions and true answers.

How an answer is put depends on the probability of the best name: from `PLAIN` on it is said as it
is, from `HEDGED` on with "may be", below not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from recipes.demo.draw.language import listing, pick, sentence
from recipes.demo.photos import wordings
from recipes.demo.photos.articles import PLURAL, be, one
from recipes.demo.photos.names import FOLDER, PEOPLE, all_names

PLAIN = 0.7
HEDGED = 0.4
ABSENT = 0.02
MENTIONED = 0.05
KNOWN = 0.5
TRIES = 20
NOTHING = "noise"
NOT_SURE = "I am not sure what this is."
Turn = tuple[str, str, str]
ASKED = {
    "name": 4.0, "caption": 2.0, "is_there": 2.0, "contents": 1.0, "guess": 1.0, "person": 1.5,
    "sure": 0.7,
}  # fmt: skip
"""How often a question of each type is asked, beside the others."""


@dataclass(frozen=True)
class Facts:
    """What is known of a photograph.

    Attributes:
        names: everyday names with their probabilities, the best first; the rest may be left out.
        known: the probability that it shows anything that has one of the names.
        person: whether a person is there; None where that is not known.
        kind: the set of photographs ("clothing" picks wordings), or `NOTHING`: nothing is in it.
        sure: everyday names of further things that are there without doubt.
        doubtful: names that must not be denied, because something speaks for them.

    Example:
        >>> name_answer(Facts((("dog", 0.5), ("wolf", 0.3))))
        'It may be a dog or a wolf.'
    """

    names: tuple[tuple[str, float], ...]
    known: float = 1.0
    person: bool | None = None
    kind: str = ""
    sure: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()


def manner_of(facts: Facts) -> str:
    """How to speak of it: "plain", "hedged" or "refused"."""
    if not facts.names or facts.known < KNOWN or facts.names[0][1] < HEDGED:
        return "refused"
    return "plain" if facts.names[0][1] >= PLAIN else "hedged"


def turns(rng: np.random.Generator, facts: Facts, count: int | None = None) -> list[Turn]:
    """Questions about a photograph as (type, question, answer): what it is always, then others.

    Args:
        rng: chooses wordings, what is asked for, and the order.
        facts: what is known.
        count: how many; None for one of each type that there is something to say about.
    """
    clothes = facts.kind == "clothing" and rng.random() < 0.5
    first = ("name", wordings.of_name(rng, clothes), name_answer(facts))
    more: list[Turn] = [
        ("contents", pick(rng, wordings.CONTENTS), contents_answer(facts)),
        ("caption", pick(rng, wordings.DESCRIBE), caption_answer(facts)),
        ("guess", pick(rng, wordings.GUESS), guess_answer(facts)),
        ("sure", pick(rng, wordings.SURE), sure_answer(facts)),
    ]
    if facts.person is not None:
        more.append(("person", pick(rng, wordings.PERSON), "yes" if facts.person else "no"))
    more += [turn for turn in (_there(rng, facts), _absent(rng, facts)) if turn]
    order = rng.permutation(len(more))
    chosen = [first, *(more[int(i)] for i in order)][:count]
    return [
        (kind, wordings.spoken(rng, question), answer)
        for kind, question, answer in (chosen[int(i)] for i in rng.permutation(len(chosen)))
    ]


def some_turns(rng: np.random.Generator, facts: Facts, count: int) -> list[Turn]:
    """Some of `turns`, of each type as often as `ASKED` says.

    Example:
        >>> facts = Facts((("dog", 0.9),))
        >>> len(some_turns(np.random.default_rng(0), facts, 2))
        2
    """
    offered = turns(rng, facts)
    weights = np.array([ASKED[kind] for kind, _, _ in offered])
    count = min(count, len(offered))
    chosen = rng.choice(len(offered), count, replace=False, p=weights / weights.sum())
    return [offered[int(i)] for i in chosen]


def name_answer(facts: Facts) -> str:
    """Returns "dog", "It may be a dog or a wolf.", or that it is not known and what is sure."""
    manner = manner_of(facts)
    if manner == "plain":
        return facts.names[0][0]
    return _hedge(facts, 2) if manner == "hedged" else _refusal(facts)


def contents_answer(facts: Facts) -> str:
    """Returns "a dog and a person"; hedged and refused as a name is."""
    if manner_of(facts) != "plain":
        return name_answer(facts)
    return listing([one(name) for name in (facts.names[0][0], *_others(facts))])


def caption_answer(facts: Facts) -> str:
    """Returns "A photo of a dog. There is a person in it."; hedged and refused as a name is."""
    manner = manner_of(facts)
    if manner == "refused":
        return _refusal(facts)
    if manner == "hedged":
        hedge = _hedge(facts, 2)
        return _with_others(hedge.replace("may be", "may be a photo of"), facts)
    return _with_others(sentence(f"a photo of {one(facts.names[0][0])}"), facts)


def guess_answer(facts: Facts) -> str:
    """Returns "a dog", or up to three that it may be; nothing of what has none of the names."""
    manner = manner_of(facts)
    if manner == "plain":
        return one(facts.names[0][0])
    if facts.known < KNOWN or not facts.names:
        return _refusal(facts)
    return _hedge(facts, 2 if manner == "hedged" else 3)


def sure_answer(facts: Facts) -> str:
    """Returns how sure in words."""
    if manner_of(facts) == "refused":
        return "not sure"
    best = facts.names[0][1]
    return "very sure" if best >= 0.9 else "quite sure" if best >= PLAIN else "not very sure"


def _hedge(facts: Facts, most: int) -> str:
    first, *others = facts.names[:most]
    names = [one(first[0]), *(one(name) for name, p in others if p >= MENTIONED)]
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"It may be {text}."


def _refusal(facts: Facts) -> str:
    return _with_others(NOT_SURE, facts)


def _with_others(text: str, facts: Facts) -> str:
    others = _others(facts)
    if not others:
        return text
    verb = be(others[0])
    return f"{text} There {verb} {listing([one(name) for name in others])} in it."


def _others(facts: Facts) -> list[str]:
    """Up to two things that are there without doubt, beside what the names say; a person first."""
    spoken_of = {name for name, p in facts.names[:3] if p >= MENTIONED}
    if manner_of(facts) == "refused":
        spoken_of = set()
    taken = set().union(*(kin(name) for name in spoken_of)) - {"person"}
    if spoken_of & PEOPLE:
        taken.add("person")
    there = ["person"] if facts.person else []
    there += [name for name in facts.sure if name != "person"]
    return [name for name in dict.fromkeys(there) if name not in taken][:2]


def is_there(rng: np.random.Generator, name: str) -> str:
    """Returns "is there a dog?", "are these scissors?" or the like."""
    this = "these" if name in PLURAL else "this"
    return pick(rng, wordings.IS_THERE).format(be=be(name), this=this, thing=one(name))


def _there(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """Asks for something that is there, or may be."""
    manner = manner_of(facts)
    present = _others(facts)
    if manner == "plain":
        present = [facts.names[0][0]] * (1 + len(present)) + present
    if present:
        name = pick(rng, present)
        question = is_there(rng, name)
        if name != facts.names[0][0]:  # "is this a person?" would ask what the photograph is of
            question = f"{be(name)} there {one(name)} in the photo?"
        return "is_there", question, "yes"
    if manner == "hedged":
        return "is_there", is_there(rng, facts.names[0][0]), "maybe"
    return None


def _absent(rng: np.random.Generator, facts: Facts) -> Turn | None:
    """Asks for something that is not there."""
    listed = dict(facts.names)
    rest = min(1 - sum(listed.values()), facts.names[-1][1]) if facts.names else 1.0
    if facts.kind == NOTHING:
        rest = 0.0
    likely = [name for name, p in facts.names if p >= ABSENT]
    there = [*likely, *facts.sure, *facts.doubtful, *(["person"] if facts.person else [])]
    barred = set().union(*(kin(name) for name in there)) | {"person", "face"}
    asked = all_names() if rest < ABSENT else [*listed]
    for _ in range(TRIES if asked else 0):
        name = pick(rng, asked)
        if listed.get(name, rest) < ABSENT and name not in barred:
            return "is_there", is_there(rng, name), "no"
    return None


@cache
def kin(name: str) -> frozenset[str]:
    """What must not be denied of a photograph of this: itself, its kinds, what comes with it.

    Example:
        >>> "truck" in kin("fire truck"), "mushroom" in kin("fire truck")
        (True, False)
    """
    last = name.split()[-1]
    found = {other for other in all_names() if other.split()[-1] == last or last == other}
    found |= {other for other in all_names() if other.split()[0] == last}
    return frozenset({name, *found}.union(*(line for line in _lines() if name in line)))


@cache
def _lines() -> tuple[frozenset[str], ...]:
    text = (FOLDER / "kin.txt").read_text(encoding="utf-8").splitlines()
    lines: Sequence[str] = [line for line in text if line and not line.startswith("#")]
    return tuple(frozenset(line.split(", ")) for line in lines)
