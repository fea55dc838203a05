"""Writes the evaluation sets of photographs, none of which is ever trained on.

`python -m recipes.demo.photo_benchmark --photos PHOTOS --labels nanodet.json --out DIR` makes one
folder a set, as `recipes.demo.benchmark` does. PHOTOS is the folder of the archives, the labels are
those of `recipes.demo.photos.nanodet`. Records come in a random order, so that the first N of a set
stand for all of it. Names are scored by all names that are accepted for a class.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from recipes.demo.benchmark import DESCRIBE, SEED, Item, Question, QuestionOnly, write_set
from recipes.demo.photos import wordings
from recipes.demo.photos.names import FIGURES, PEOPLE, accepted_names, all_names, class_names, many
from recipes.demo.photos.nanodet import Seen, read_labels
from recipes.demo.photos.readers import Annotation, Photo, read_annotations, read_photos
from recipes.demo.photos.templates import NOT_SURE, Facts, is_there, kin, turns
from recipes.demo.photos.unknown import made_up, noise

ASKED = "What is this?"
PERSON = "Is there a person?"
SIDE = 320
NOISES, MADE_UP = 60, 140
PEOPLE_WORDS = (
    "man", "men", "woman", "women", "boy", "girl", "child", "children", "kid", "guy", "lady",
    "player", "skier", "presenter", "batter", "person", "people", "someone",
)  # fmt: skip
Set = Callable[["PhotoData"], Iterator[Item]]


@dataclass
class PhotoData:
    """The photographs and what the detector says of them.

    Args:
        folder: holds the archives.
        labels: the file that `recipes.demo.photos.nanodet` wrote.
    """

    folder: Path
    labels: Path

    @cached_property
    def seen(self) -> dict[str, Seen]:
        """The name of each photograph in its archive -> what the detector sees."""
        return read_labels(self.labels)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        """The name of each CC-BY photograph -> what people wrote about it."""
        return read_annotations(self.folder)

    def photos(self, *names: str) -> list[Photo]:
        """The validation photographs of some sets, in a random order that is always the same."""
        photos = [p for name in names for p in read_photos(self.folder, name, "validation")]
        return [photos[int(i)] for i in np.random.default_rng(SEED).permutation(len(photos))]

    def person(self, photo: Photo) -> bool | None:
        """Whether a person is there, as the class, the annotations or the detector say."""
        if photo.set == "coco":
            return "person" in self.annotations[photo.name].objects
        name = class_names().get((photo.set, photo.label), "")
        if name in FIGURES:
            return None
        return True if name in PEOPLE else self.seen[photo.name].person

    def training_turns(self, name: str) -> Iterator[tuple[str, str, str]]:
        """What training says of the photographs of a set when it knows all about them."""
        rng = np.random.default_rng(SEED)
        for photo in read_photos(self.folder, name, "train"):
            label = class_names().get((name, photo.label))
            facts = Facts(
                names=((label, 1.0),) if label else (),
                person=self.person(photo),
                kind=name,
                sure=self.seen[photo.name].sure,
                doubtful=self.seen[photo.name].doubtful,
            )
            for kind, question, answer in turns(rng, facts):
                yield kind, wordings.bare(question), answer


class BareQuestionOnly(QuestionOnly):
    """A `QuestionOnly` for questions that are typed in many ways."""

    def __call__(self, kind: str, question: str) -> str:
        """Guesses an answer to a question in any way of typing it."""
        return super().__call__(kind, wordings.bare(question))


def picture(photo: Photo) -> bytes:
    """The photograph as a JPEG file, made smaller if a side is above `SIDE`."""
    image = photo.load()
    if max(image.size) <= SIDE:
        return photo.data
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def named(photo: Photo, question: str, kind: str = "name") -> Question:
    """A question after the class of a photograph."""
    name, *others = accepted_names(photo.set, photo.label)
    return Question(kind, question, name, tuple(others))


def names(set_name: str, question: str = ASKED, kind: str = "name") -> Set:
    """A set that asks after the class of each photograph."""

    def items(data: PhotoData) -> Iterator[Item]:
        for photo in data.photos(set_name):
            yield picture(photo), [named(photo, question, kind)]

    return items


def reworded(set_name: str, questions: Sequence[str]) -> Set:
    """A set that asks after the class in several wordings, the first N records in all of them."""

    def items(data: PhotoData) -> Iterator[Item]:
        for photo in data.photos(set_name):
            asked = [question[0].upper() + question[1:] for question in questions]
            yield picture(photo), [named(photo, question) for question in asked]

    return items


def person_items(data: PhotoData) -> Iterator[Item]:
    """Faces: yes; where the detector sees none: no; the CC-BY photographs by their annotations."""
    for photo in data.photos("coco", "caltech"):
        there = data.person(photo)
        is_face = class_names().get((photo.set, photo.label)) in PEOPLE
        if there is False or is_face or photo.set == "coco":
            yield picture(photo), [_person(bool(there))]


def person_even_items(data: PhotoData) -> Iterator[Item]:
    """As many photographs with a person, by class, annotations or detector, as without."""
    photos = data.photos("coco", "caltech", "clothing")
    sorted_out = [[p for p in photos if data.person(p) is there] for there in (True, False)]
    for pair in zip(*sorted_out, strict=False):
        for photo, there in zip(pair, (True, False), strict=True):
            yield picture(photo), [_person(there)]


def _person(there: bool) -> Question:
    return Question("person", PERSON, "yes" if there else "no")


def there_items(data: PhotoData) -> Iterator[Item]:
    """Asks for the class of each photograph, or for what is not on it."""
    rng = np.random.default_rng(SEED)
    for number, photo in enumerate(data.photos("caltech")):
        name = class_names()[photo.set, photo.label]
        answer = "yes"
        if number % 2:
            there = [name, *data.seen[photo.name].doubtful]
            absent = [n for n in _classes() if all(n not in kin(other) for other in there)]
            name, answer = absent[int(rng.integers(len(absent)))], "no"
        yield picture(photo), [Question("is_there", is_there(rng, name), answer)]


def _classes() -> list[str]:
    told = (name for (set_name, _), name in class_names().items() if set_name == "caltech")
    return [name for name in dict.fromkeys(told) if name not in PEOPLE]


def background_items(data: PhotoData) -> Iterator[Item]:
    """Pictures of anything, of which none of the classes is right."""
    for photo in data.photos("background"):
        yield picture(photo), [Question("name", ASKED, NOT_SURE, refusal=True)]


def drawn_items(draw: Callable[[np.random.Generator, str, int], np.ndarray], count: int) -> Set:
    """A set of pictures that show nothing with a name."""

    def items(data: PhotoData) -> Iterator[Item]:
        for number in range(count):
            rng = np.random.default_rng((SEED, number))
            image = draw(rng, "validation", int(rng.integers(96, SIDE + 1)))
            yield image, [Question("name", ASKED, NOT_SURE, refusal=True)]

    return items


def described_items(data: PhotoData) -> Iterator[Item]:
    """The CC-BY photographs; what may be named is what people marked or wrote."""
    for photo in data.photos("coco"):
        annotation = data.annotations[photo.name]
        asked = Question("caption", DESCRIBE, annotation.captions[0], things=things(annotation))
        yield picture(photo), [asked]


def things(annotation: Annotation) -> tuple[str, ...]:
    """All names of what people marked on a photograph or wrote about it.

    Example:
        >>> told = things(Annotation(("Two men ride horses.",), ("horse",), ""))
        >>> [name in told for name in ("horse", "person", "dog")]
        [True, True, False]
    """
    text = f" {' '.join(wordings.bare(caption) for caption in annotation.captions)} "

    def is_told(word: str) -> bool:
        return f" {word} " in text or f" {many(word)} " in text

    told = {name for name in all_names() if is_told(name)}
    if any(is_told(word) for word in PEOPLE_WORDS):
        told.add("person")
    for set_name, label in class_names():
        if set_name == "coco":
            accepted = accepted_names(set_name, label)
            if label in annotation.objects or any(is_told(word) for word in accepted):
                told.update(accepted)
    return tuple(sorted(told))


SETS: dict[str, tuple[Set, tuple[str, ...]]] = {
    "photos_caltech": (names("caltech"), ("caltech",)),
    "photos_caltech_wordings": (reworded("caltech", wordings.HELD_NAME), ("caltech",)),
    "photos_caltech_captions": (names("caltech", DESCRIBE, "caption"), ("caltech",)),
    "photos_is_there": (there_items, ("caltech",)),
    "photos_grocery": (names("grocery"), ("grocery",)),
    "photos_clothing_what": (names("clothing"), ("clothing",)),
    "photos_clothing_wordings": (reworded("clothing", wordings.HELD_CLOTHES), ("clothing",)),
    "photos_person": (person_items, ("caltech",)),
    "photos_person_even": (person_even_items, ("caltech", "clothing")),
    "photos_background": (background_items, ("caltech", "grocery", "clothing")),
    "unknown_noise": (drawn_items(noise, NOISES), ("caltech", "grocery", "clothing")),
    "unknown_drawings": (drawn_items(made_up, MADE_UP), ("caltech", "grocery", "clothing")),
    "photos_described": (described_items, ("caltech", "grocery", "clothing")),
}
"""Name -> how its records are made, and the training photographs that its question-only guess is
learnt from."""


def build(data: PhotoData, out: Path, chosen: Sequence[str] = tuple(SETS)) -> None:
    """Writes the evaluation sets and prints their sizes.

    Args:
        data: photographs and labels.
        out: the folder to write to.
        chosen: which sets.

    Raises:
        ValueError: an unknown set.
        FileNotFoundError: an archive or the labels are missing.
    """
    guesses: dict[tuple[str, ...], BareQuestionOnly] = {}
    for name in chosen:
        if name not in SETS:
            raise ValueError(f"set {name!r} is unknown, expected some of {[*SETS]}")
        items, learnt_from = SETS[name]
        if learnt_from not in guesses:
            told = (turn for kind in learnt_from for turn in data.training_turns(kind))
            guesses[learnt_from] = BareQuestionOnly.learn(told)
        pictures, questions, share = write_set(out / name, items(data), guesses[learnt_from])
        print(f"{name:24s} {pictures:5d} pictures {questions:6d} questions", end="  ")
        print(f"question only {100 * share:5.1f} %", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photographs")
    parser.add_argument("--labels", type=Path, required=True, help="the detector's labels")
    parser.add_argument("--out", type=Path, required=True, help="where the sets go")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    options = parser.parse_args(arguments)
    build(PhotoData(options.photos, options.labels), options.out, options.sets)


if __name__ == "__main__":
    main()
