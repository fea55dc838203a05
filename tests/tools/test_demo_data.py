"""The demo model's data: splits hold, answers are true, records repeat.

What needs the raw downloads looks for their work folder in the variable DEMO_MODEL_WORK.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from recipes.demo.benchmark import QuestionOnly, write_set
from recipes.demo.draw import scene_questions, shapes, words
from recipes.demo.draw.easy_vqa import change
from recipes.demo.draw.emoji_labels import NUM_LABELS, TRAIN_ARTISTS, UNSEEN_ARTISTS, slug_of
from recipes.demo.draw.fetch import is_complete
from recipes.demo.draw.further_artists import FURTHER_ARTISTS, icon_of
from recipes.demo.draw.language import article, counted, plural
from recipes.demo.draw.pretrain_labels import IGNORED, NOTHING, PLACES
from recipes.demo.draw.records import DemoData
from recipes.demo.draw.scenes import Scene, SceneMaker, Thing, held_out_parts, relation
from recipes.demo.draw.splits import bucket, held_out, split_id

pytestmark = pytest.mark.once

WORK = os.environ.get("DEMO_MODEL_WORK", "")
needs_raw = pytest.mark.skipif(
    not WORK or not is_complete(Path(WORK)),
    reason="the raw downloads are not there: run recipes.demo.draw.fetch, set DEMO_MODEL_WORK",
)
SHAPES_ALONE = DemoData(None, mix={"scenes": 0.7, "words": 0.3})


def scenes(split: str, count: int = 60) -> list[Scene]:
    """Makes some scenes of shapes."""
    maker = SceneMaker(None)
    return [maker.make(np.random.default_rng((split_id(split), i)), split) for i in range(count)]


def scene_of(*things: Thing, focus: tuple[int, ...] = ()) -> Scene:
    """Makes a scene without a picture."""
    return Scene(np.zeros((64, 64, 3), np.uint8), things, focus)


def test_buckets_are_fixed_and_even() -> None:
    # a changed hash would move words between the splits of models already shipped
    assert [bucket("word", "apple"), bucket("colour", "red", "circle")] == [31, 66]
    share = np.mean([held_out("word", f"w{i}") for i in range(4000)])
    assert 0.13 < share < 0.17


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="validation"):
        split_id("validation")


def test_train_scenes_hold_nothing_held_out() -> None:
    for scene in scenes("train"):
        for thing in scene.things:
            assert not held_out("colour", str(thing.colour), thing.name)
        for a, b in combinations(scene.things, 2):
            assert a.name == b.name or not held_out("relation", *relation(a, b))


def test_test_scenes_always_hold_something_held_out() -> None:
    for scene in scenes("test"):
        parts = held_out_parts(scene.things)
        assert scene.focus in parts


def test_relation_does_not_depend_on_the_order() -> None:
    a, b = Thing("circle", "red", 0.2, 0.3, 0.2), Thing("star", "blue", 0.7, 0.5, 0.2)
    assert relation(a, b) == relation(b, a) == ("circle", "left", "star")
    low = Thing("heart", "pink", 0.3, 0.9, 0.2)
    assert relation(low, a) == ("circle", "above", "heart")


def test_drawn_pixels_have_the_named_colour() -> None:
    checked = 0
    for scene in scenes("train", 30):
        for thing in scene.things:
            if thing.name not in ("circle", "square", "diamond"):
                continue
            y, x = int(thing.y * 64), int(thing.x * 64)
            pixel = scene.image[y, x].astype(float)
            table = np.array(list(shapes.COLOURS.values()), float)
            nearest = list(shapes.COLOURS)[int(np.abs(table - pixel).sum(-1).argmin())]
            assert nearest == thing.colour
            checked += 1
    assert checked > 15


def test_objects_lie_apart_and_in_the_picture() -> None:
    for scene in scenes("test"):
        cells = [thing.cell for thing in scene.things]
        assert len(set(cells)) == len(cells)
        for thing in scene.things:
            assert thing.size / 2 <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y) + 1e-6


def test_answers_are_true() -> None:
    dog, cat = Thing("dog", None, 0.2, 0.2, 0.4), Thing("cat", None, 0.8, 0.25, 0.2)
    star = Thing("star", "red", 0.8, 0.8, 0.2)
    scene = scene_of(dog, cat, star)
    rights = {
        ("what color is the star?", "red"), ("what is the red shape?", "star"),
        ("what is to the left of the cat?", "dog"), ("what is below the cat?", "red star"),
        ("which is bigger, the dog or the cat?", "dog"), ("where is the cat?", "top right"),
        ("is the cat left of the dog?", "no"), ("how many objects are there?", "3"),
        ("what is in the bottom right?", "red star"), ("how many dogs are there?", "1"),
    }  # fmt: skip
    asked = dict(rights)
    seen: set[str] = set()
    for seed in range(600):
        for _, question, answer in scene_questions.scene_turns(
            np.random.default_rng(seed), scene, 4
        ):
            assert asked.get(question, answer) == answer
            seen.add(question)
            if question.startswith(("do you see", "is there", "can you see")):
                word = question.removesuffix(" in the picture?").rstrip("?").split(" a ")[-1]
                present = {word for thing in scene.things for word in (thing.name, thing.phrase)}
                assert (answer == "yes") == (word.split(" an ")[-1] in present)
    assert len(seen & set(asked)) == len(asked), set(asked) - seen


def test_nothing_ambiguous_is_asked() -> None:
    twins = scene_of(
        Thing("dog", None, 0.2, 0.2, 0.2), Thing("dog", None, 0.8, 0.2, 0.2),
        Thing("star", "red", 0.2, 0.8, 0.2), Thing("star", "blue", 0.8, 0.8, 0.2),
    )  # fmt: skip
    for seed in range(200):
        rng = np.random.default_rng(seed)
        assert scene_questions.colour(rng, twins) is None
        assert scene_questions.bigger(rng, twins) is None
        turn = scene_questions.where(rng, twins)
        assert turn is not None and "dog" not in turn[0] and "the star" not in turn[0]


def test_caption_counts_and_relates() -> None:
    rng = np.random.default_rng(0)
    two = scene_of(Thing("heart", "pink", 0.2, 0.5, 0.2), Thing("owl", None, 0.8, 0.5, 0.2))
    turn = scene_questions.caption(rng, two)
    assert turn is not None and turn[1] == "A pink heart to the left of an owl."
    mice = [Thing("mouse", None, x, 0.5, 0.1) for x in (0.2, 0.5, 0.8)]
    turn = scene_questions.caption(rng, scene_of(*mice))
    assert turn is not None and turn[1] == "Three mice."


def test_records_repeat_and_differ() -> None:
    first = SHAPES_ALONE.make_record("scenes", "train", 3, 0)
    again = DemoData(None).make_record("scenes", "train", 3, 0)
    other = SHAPES_ALONE.make_record("scenes", "train", 4, 0)
    assert np.array_equal(first["image"], again["image"])
    assert first["messages"] == again["messages"] and first["group"] == "scenes"
    assert not np.array_equal(first["image"], other["image"])
    roles = [message["role"] for message in first["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) >= 2


def test_size_is_a_parameter() -> None:
    for kind in ("scenes", "words"):
        image = DemoData(None, size=96).make_record(kind, "train", 0, 0)["image"]
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8


def test_kinds_follow_the_mix() -> None:
    kinds = [SHAPES_ALONE.kind_at(i, 1) for i in range(400)]
    assert set(kinds) == {"scenes", "words"}
    assert 0.6 < kinds.count("scenes") / 400 < 0.8
    with pytest.raises(ValueError, match="films"):
        DemoData(None, mix={"films": 1.0})


def test_labelled_scene_agrees_with_its_objects() -> None:
    for index in range(10):
        image, targets = SHAPES_ALONE.make_labelled("scenes", "train", index, 2)
        record = SHAPES_ALONE.make_record("scenes", "train", index, 2)
        assert np.array_equal(image, record["image"])
        there = targets["cells"] != NOTHING
        assert np.array_equal(there, targets["colour"] != IGNORED) and there.any()
        assert set(targets["cells"][there]) <= set(range(NUM_LABELS, NOTHING))
        assert targets["name"] == targets["clothing"] == IGNORED
        assert (targets["letters"] == IGNORED).all()
        for key in ("x", "y", "size"):
            assert np.array_equal(targets[key] != IGNORED, there)
        rows, columns = np.nonzero(there)
        assert np.array_equal(targets["y"][there] * 4 // PLACES, rows)
        assert np.array_equal(targets["x"][there] * 4 // PLACES, columns)


def test_labelled_letters_stand_where_they_are_printed() -> None:
    for index in range(20):
        image, targets = SHAPES_ALONE.make_labelled("words", "train", index, 2)
        word = SHAPES_ALONE.make_record("words", "train", index, 2)["messages"][1]["content"]
        rows, columns, order = np.nonzero(targets["spelling"])
        letters = targets["spelling"][rows, columns, order]
        by_number = [words.LETTERS[letters[i] - 1] for i in np.argsort(order)]
        assert "".join(by_number) == word
        fine = np.nonzero(targets["strokes"])
        assert set(zip(fine[0] // 2, fine[1] // 2, strict=True)) == set(
            zip(rows, columns, strict=True)
        )
        # from left to right, and with ink in their cells
        assert (np.diff(columns[np.argsort(order)]) >= 0).all()
        row, column, _ = np.nonzero(targets["letters"])
        assert set(zip(row, column, strict=True)) == set(zip(rows, columns, strict=True))
        for r, c in zip(rows, columns, strict=True):
            assert np.ptp(image[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].mean(-1)) > 40


def test_english() -> None:
    assert (article("owl"), article("ewe"), plural("mouse")) == ("an owl", "a ewe", "mice")
    assert counted("red cross", 3) == "three red crosses"


def test_slug_follows_the_icon_sets() -> None:
    assert slug_of("woman\u2019s hat") == "womans-hat"
    assert slug_of("twelve o\u2019clock") == "twelve-oclock"


def test_easy_vqa_changes_keep_the_centre() -> None:
    image = np.full((64, 64, 3), 240, np.uint8)
    image[4:12, 40:48] = 0
    for seed in range(8):
        centre = np.array([44 / 64, 8 / 64])
        changed, (x, y) = change(np.random.default_rng(seed), image, centre, 64)
        assert changed[min(int(y * 64), 63), min(int(x * 64), 63)].max() < 20


def test_question_only_guess_and_written_set(tmp_path: Path) -> None:
    guess = QuestionOnly.learn([("a", "q?", "yes")] * 6 + [("a", "r?", "no")] * 7)
    assert (guess("a", "q?"), guess("a", "new?"), guess("b", "new?")) == ("yes", "no", "no")
    image = np.zeros((8, 8, 3), np.uint8)
    items = [(image, [("a", "q?", "yes")]), (image, [("a", "s?", "yes"), ("a", "q?", "no")])]
    assert write_set(tmp_path / "set", items, guess) == (2, 3, 1 / 3)
    files = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert files == ["0001.png", "0002.png", "records.jsonl"]


def test_unseen_artists_are_apart() -> None:
    assert not {*TRAIN_ARTISTS, *FURTHER_ARTISTS} & set(UNSEEN_ARTISTS)
    assert set(UNSEEN_ARTISTS) == {"emojione", "openmoji"}


def test_further_artists_have_names_of_their_own() -> None:
    assert icon_of("noto", "cactus", ["cactus"]) == "cactus"
    assert icon_of("noto", "alarm-clock", ["alarmclock"]) is None
    assert icon_of("fxemoji", "alarm-clock", ["alarmclock"]) == "alarmclock"
    assert icon_of("fxemoji", "two-thirty", ["clock2thirty"]) == "clock2thirty"
    assert icon_of("fxemoji", "panda", ["pandaface"]) == "pandaface"
    assert icon_of("streamline-emojis", "cactus", ["cactus-2", "cactus-1"]) == "cactus-1"
    assert icon_of("streamline-emojis", "cactus", ["cactus-plant"]) is None


@needs_raw
def test_single_pictures_come_from_further_artists_too() -> None:
    data = DemoData(WORK)
    drawn = data.names_bank.drawn
    assert data.names_bank.artists == TRAIN_ARTISTS + FURTHER_ARTISTS
    assert drawn[: len(TRAIN_ARTISTS)].all()
    assert all(150 < count < NUM_LABELS for count in drawn[len(TRAIN_ARTISTS) :].sum(1))
    assert data.bank.artists == TRAIN_ARTISTS  # scenes are what they were


@needs_raw
def test_labels_follow_the_rule() -> None:
    from recipes.demo.draw.emoji_labels import emoji_labels

    labels = emoji_labels(Path(WORK))
    assert len(labels) == len({label.name for label in labels}) == NUM_LABELS
    assert all(label.name == label.name.lower() and label.name.isascii() for label in labels)


@needs_raw
@pytest.mark.parametrize("kind", ["scenes", "emoji", "easy_vqa"])
def test_drawn_kinds_make_records(kind: str) -> None:
    data = DemoData(WORK)
    assert data.bank.artists == TRAIN_ARTISTS
    for split in ("train", "test"):
        record = data.make_record(kind, split, 1, 0)
        assert record["image"].shape == (64, 64, 3) and len(record["messages"]) >= 2


@needs_raw
def test_easy_vqa_is_the_public_split() -> None:
    data = DemoData(WORK)
    train, test = data.source("easy_vqa", "train"), data.source("easy_vqa", "test")
    assert (len(train.images), len(test.images)) == (4000, 1000)
    assert sum(map(len, train.questions)) == 38_575 and sum(map(len, test.questions)) == 9_673
