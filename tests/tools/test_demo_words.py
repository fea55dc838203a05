"""The printed words: splits are apart, shares are kept, letters stand where it is said."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recipes.demo.draw import words
from recipes.demo.draw.fetch import PIP_PACKAGES, raw_folder
from recipes.demo.draw.records import DemoData
from recipes.demo.draw.splits import held_out

pytestmark = pytest.mark.once


def test_centres_turn_with_the_word() -> None:
    turned = 0
    for seed in range(40):
        made = words.draw_word(np.random.default_rng(seed), "hhhhh", 64)
        (x0, y0), (x1, y1) = made.centres[0], made.centres[-1]
        if abs(y1 - y0) < 0.03:
            continue
        turned += 1
        ground = np.median(made.image.reshape(-1, 3), axis=0)
        ink = np.abs(made.image - ground).max(-1) > 60
        for x, y in ((x0, y0), (x1, y1)):
            left, right = int((x - 0.06) * 64), int((x + 0.06) * 64)
            heights = np.nonzero(ink[:, max(left, 0) : right])[0]
            assert abs(heights.mean() / 64 - y) < 0.04
    assert turned > 5


def test_words_of_the_splits_are_apart() -> None:
    lexicon = words.lexicon(None)
    train, test = words.split_words(lexicon, "train"), words.split_words(lexicon, "test")
    assert not set(train) & set(test) and set(train) | set(test) == set(lexicon)
    for index in range(150):
        rng = np.random.default_rng(index)
        made = words.make_word(rng, train, "train", 64)
        assert not held_out("word", made.word) and 3 <= len(made.word) <= words.MAX_LETTERS


def test_a_share_of_long_words_can_be_asked_for() -> None:
    train = words.split_words(words.lexicon(None), "train")

    def letters(share: float) -> np.ndarray:
        rng = np.random.default_rng(0)
        made = [words.make_word(rng, train, "train", 32, share).word for _ in range(60)]
        assert not any(held_out("word", word) for word in made)
        return np.array([len(word) for word in made])

    assert (letters(1.0) >= words.MANY_LETTERS).all()
    often, seldom = ((letters(share) >= words.MANY_LETTERS).mean() for share in (0.6, 0.0))
    assert seldom + 0.15 < often < 1
    long = DemoData(None, mix={"words": 1.0}, long_words=1.0)
    copy = pickle.loads(pickle.dumps(long))
    lengths = {
        split: [
            len(copy.sample("words", split, i, np.random.default_rng(i)).fact.word)
            for i in range(12)
        ]
        for split in ("train", "test")
    }
    assert min(lengths["train"]) >= words.MANY_LETTERS > min(lengths["test"])


def fetched_words(work: Path, counts: dict[str, int]) -> Path:
    """Writes counted words as the package that holds them does."""
    name = f"pyspellchecker-{PIP_PACKAGES['pyspellchecker']}-py3-none-any.whl"
    raw_folder(work).mkdir(parents=True)
    with zipfile.ZipFile(raw_folder(work) / name, "w") as wheel:
        packed = gzip.compress(json.dumps(counts).encode())
        wheel.writestr("spellchecker/resources/en.json.gz", packed)
    return work


def test_common_words_are_the_commonest_and_none_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, held = "copper", "brown"
    assert held_out("word", held) and not held_out("word", kept)
    unfit = dict.fromkeys(["ox", "rhubarb", "o'er", "caf\u00e9", "Paris", "boobs", "shits"], 9)
    counts = {kept: 5, held: 7, "seldom": 1, "market": 3, **unfit}
    assert not any(held_out("word", word) for word in ("seldom", "market", *unfit))
    work = fetched_words(tmp_path, counts)
    assert words.common_words(work) == (kept, "market", "seldom")
    monkeypatch.setattr(words, "COMMON", 3)
    assert words.common_words(work) == (kept, "market")
    with pytest.raises(FileNotFoundError, match=r"pyspellchecker.*run recipes.demo.draw.fetch"):
        words.common_words(tmp_path / "empty")


def test_a_share_of_common_words_can_be_asked_for() -> None:
    train, common = words.split_words(words.lexicon(None), "train"), ("oxbow", "eel")

    def shares(share: float, split: str = "train") -> float:
        rng = np.random.default_rng(0)
        made = [words.make_word(rng, train, split, 32, 0.0, common, share).word for _ in range(80)]
        return float(np.mean([word in common for word in made]))

    assert not set(common) & set(train)
    assert shares(1.0) == 1 and 0.4 < shares(0.6) < 0.8
    assert shares(0.0) == shares(1.0, "test") == 0
    rng = np.random.default_rng(0)
    long = [words.make_word(rng, train, "train", 32, 1.0, common, 1.0).word for _ in range(9)]
    assert set(long) == {"oxbow"}


def test_data_draw_common_words_in_training_alone(tmp_path: Path) -> None:
    data = DemoData(fetched_words(tmp_path, {"oxbow": 1}), mix={"words": 1.0}, common_words=1.0)
    data._loaded.update({("words", split): ("eel",) for split in ("train", "test")})
    copy = pickle.loads(pickle.dumps(data))
    copy._loaded.update(data._loaded)
    for split, word in (("train", "oxbow"), ("test", "eel")):
        drawn = {
            copy.sample("words", split, i, np.random.default_rng(i)).fact.word for i in range(4)
        }
        assert drawn == {word}
    assert DemoData(None).common == ()


def test_word_is_drawn_and_spelt() -> None:
    rng = np.random.default_rng(0)
    image = words.draw_word(rng, "river", 64).image
    assert np.ptp(image @ [0.299, 0.587, 0.114]) > 80
    assert words.letter_ids("abz").tolist() == [1, 2, 26, 0, 0, 0]
    turns = {t: a for seed in range(30) for t, _, a in _word_turns(seed)}
    assert (turns["read"], turns["letters"], turns["spell"]) == ("river", "5", "r i v e r")
    assert words.word_turns(rng, "river", 1, upper=True)[0][2] == "RIVER"


def _word_turns(seed: int) -> list[tuple[str, str, str]]:
    return words.word_turns(np.random.default_rng(seed), "river", 3)
