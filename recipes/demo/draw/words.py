"""Pictures of one short printed word, in matplotlib's bundled fonts."""

from __future__ import annotations

import gzip
import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recipes.demo.draw.emoji_labels import emojibase_words
from recipes.demo.draw.fetch import pip_file
from recipes.demo.draw.grounds import make_ground
from recipes.demo.draw.language import pick, sentence
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS
from recipes.demo.draw.splits import held_out

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "cmr10", "cmss10", "cmtt10", "cmb10",
)  # fmt: skip
MAX_LETTERS = 6
MANY_LETTERS = 5  # from here on words are small print
COMMON = 10_000  # how many of the commonest words there are
# not fit to be shown as examples
_LEFT_OUT = {"sexy", "thong", "thongs", "turd", "turds", "pissed", "lust", "fart", "bdsm"}
# nor to be read into a blurred word
_COARSE = {
    "anal", "anus", "arse", "arses", "boob", "boobs", "chink", "chinks", "cock", "cocks", "coon",
    "coons", "cum", "dick", "dicks", "dyke", "dykes", "fag", "fags", "gook", "gooks", "homo",
    "homos", "jizz", "kike", "kikes", "piss", "prick", "pricks", "rape", "raped", "rapes",
    "rapist", "retard", "spic", "spics", "tits", "titty", "twat", "twats", "wank", "wanker",
}  # fmt: skip
_COARSE_PARTS = ("bitch", "cunt", "fuck", "nigg", "penis", "porn", "puss", "shit", "slut", "vagin",
                 "whore")  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"
READ_QUESTIONS = (
    "what word is this?",
    "what does it say?",
    "read the word.",
    "which word is in the picture?",
    "what is written here?",
)
COUNT_QUESTIONS = ("how many letters are there?", "how many letters does the word have?")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
# words that need no download, so that reading can be tried without one
EASY_WORDS = tuple(
    """
    able acid age air also apple arm army art aunt baby back bad bag ball bank base bath beach bean
    bed bell best big bike bird blue boat body bone book born both bowl box boy bread brown brush
    bus busy cake call calm camp candy car card care cash cat chair cheap child city clay clean
    clock cloud coal coat code coffee cold cook cool copy corn cost cow cream cup dance dark day
    deep desk dinner dirt dish doctor dog door down draw dream dress drink drive dry duck dust ear
    early earth east easy egg eight empty end enjoy even exit eye face fact fair fall family farm
    fast fat father feel few field fine fire fish five flag flat floor flower fly food foot forest
    fork four fox free fresh friend frog fruit full fun game garden gas gate gift girl glad glass
    goat gold good grass gray great green group grow guest hair half hall hand happy hard hat head
    heat heavy help hen hero high hill hit home honey hope horse hot hotel hour house ice idea ink
    iron island jam job join joke juice jump just keep key kind king kiss kite knee knife lady lake
    lamp land large last late law lazy leaf learn left leg lemon less letter light lion list live
    long look lost loud love low lucky lunch made magic mail make man many map mark market meal
    meat meet milk mind mirror money monkey month moon more mother mouse mouth movie music nail
    name near neck need nest new nice night nine noise north nose note number nurse ocean office
    old onion open orange order other over own page paint pair palm paper park part party pass past
    peace pen pencil people pepper phone photo piano pick pink pizza place plan plant plate play
    point pool poor post pot pound power press price pull pure purple push queen quick quiet race
    radio rain read ready red rest rice rich right ring river road rock roof room root rose round
    rule run sad safe salad sale salt same sand school sea seat seed sell send seven shape sharp
    sheep shelf ship shirt shoe shop short show shy sick side silver sing sister six size skin sky
    sleep slow small smart smile snake snow soap sock soft song soup south space speak spoon sport
    spring square stairs stamp star start stone stop storm story street strong study sugar summer
    sun sweet swim table tail tall taste taxi tea teach team ten tent test thank thick thin thing
    three ticket tiger time tired today tomato tooth top town toy train travel tree true turn two
    uncle under up value van very visit voice wait walk wall want warm wash watch water wave way
    weak week west wet wheel white wide wild win wind window wine winter wise wolf woman wood wool
    word work world write wrong yard year yellow yes young zebra zero zoo
    """.split()
)


@dataclass(frozen=True)
class WordPicture:
    """A printed word.

    Attributes:
        image: uint8[S, S, 3].
        word: in lower case.
        centres: float32[letters, 2], x and y of each letter as shares of the side.
    """

    image: np.ndarray
    word: str
    centres: np.ndarray


def lexicon(work: Path | None) -> tuple[str, ...]:
    """Returns all words, sorted; without a work folder the built-in ones alone."""
    words = {word for word in EASY_WORDS if 3 <= len(word) <= MAX_LETTERS}
    if work is not None:
        words |= set(emojibase_words(work))
    return tuple(sorted(words - _LEFT_OUT))


def common_words(work: Path) -> tuple[str, ...]:
    """Returns the commonest English words of 3 to 6 letters, those held out for the test left out.

    They are of the film subtitles that pyspellchecker (MIT) counted.

    Raises:
        FileNotFoundError: when that package has not been fetched.
    """
    with zipfile.ZipFile(pip_file(work, "pyspellchecker")) as wheel:
        counts = json.loads(gzip.decompress(wheel.read("spellchecker/resources/en.json.gz")))
    fitting = [word for word in counts if 3 <= len(word) <= MAX_LETTERS and _is_decent(word)]
    fitting = [word for word in fitting if set(word) <= set(LETTERS)]
    commonest = sorted(fitting, key=lambda word: (-counts[word], word))[:COMMON]
    return split_words(tuple(sorted(commonest)), "train")


def _is_decent(word: str) -> bool:
    parts = any(part in word for part in _COARSE_PARTS)
    return not parts and word not in _LEFT_OUT | _COARSE


def split_words(words: tuple[str, ...], split: str) -> tuple[str, ...]:
    """Returns the words of one split; 15 % by hash are "test"."""
    return tuple(word for word in words if held_out("word", word) == (split == "test"))


@lru_cache(maxsize=2048)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Returns one of matplotlib's bundled fonts at a size in pixels."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size)


def made_up_word(rng: np.random.Generator, least: int = 3) -> str:
    """Returns at least so many random letters, often vowels and consonants in turn."""
    count = int(rng.integers(least, MAX_LETTERS + 1))
    if rng.random() < 0.4:
        return "".join(LETTERS[int(i)] for i in rng.integers(26, size=count))
    vowels, others = "aeiou", "bcdfghjklmnpqrstvwxyz"
    start = int(rng.integers(2))
    return "".join(pick(rng, vowels if (i + start) % 2 else others) for i in range(count))


def _fitting_font(rng: np.random.Generator, text: str, limit: float) -> ImageFont.FreeTypeFont:
    """Returns a font in which the text is at most `limit` pixels wide."""
    name = pick(rng, FONTS)
    base = load_font(name, 20).getlength(text) / 20.0
    largest = min(limit / base, 0.6 * limit)
    return load_font(name, max(9, round(rng.uniform(0.72, 1.0) * largest)))


def draw_word(rng: np.random.Generator, word: str, size: int) -> WordPicture:
    """Draws a word on a ground, in a tone that stands out.

    Args:
        rng: the source of randomness.
        word: the word in lower case; it may come out in capitals.
        size: side in pixels.
    """
    style = rng.random()
    text = word.upper() if style < 0.4 else word.capitalize() if style < 0.5 else word
    font = _fitting_font(rng, text, 0.92 * size)
    left, top, right, bottom = font.getbbox(text)
    room_x, room_y = size - (right - left), size - (bottom - top)
    x = rng.uniform(0.15, 0.85) * room_x - left
    y = rng.uniform(0.08, 0.92) * room_y - top
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).text((x, y), text, fill=255, font=font)
    centre = np.array((x + (left + right) / 2, y + (top + bottom) / 2), np.float32)
    ends = np.array([font.getlength(text[:i]) for i in range(len(text) + 1)], np.float32)
    centres = np.stack([x + (ends[:-1] + ends[1:]) / 2, np.full(len(text), centre[1])], -1)
    if rng.random() < 0.5:
        angle = rng.uniform(-7, 7)
        mask = mask.rotate(angle, Image.Resampling.BILINEAR, center=tuple(centre))
        centres = centre + (centres - centre) @ _counterclockwise(angle)
    ground, tones = _word_ground(rng, size)
    cover = np.asarray(mask, np.float32)[..., None] / 255.0
    image = ground + cover * (_ink(rng, tones) - ground)
    if rng.random() < 0.2:
        image = image + rng.normal(0, rng.uniform(2, 10), image.shape).astype(np.float32)
    pixels = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return WordPicture(pixels, word, (centres / size).astype(np.float32))


def _counterclockwise(degrees: float) -> np.ndarray:
    """The matrix that turns row vectors (x, y), y downwards, as PIL turns pictures."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _word_ground(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() < 0.3:
        white = np.full((size, size, 3), 255, np.float32)
        return white, white[0, :2]
    return make_ground(rng, size, 30.0)


def _ink(rng: np.random.Generator, tones: np.ndarray) -> np.ndarray:
    """Returns a tone whose brightness is far from the ground's."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grounds = tones @ weights
    for _ in range(30):
        tone = rng.uniform(0, 255, 3).astype(np.float32)
        if np.abs(tone @ weights - grounds).min() > 95:
            return tone
    return np.full(3, 0 if grounds.mean() > 127 else 255, np.float32)


def make_word(
    rng: np.random.Generator,
    words: tuple[str, ...],
    split: str,
    size: int,
    long_share: float = 0.0,
    common: tuple[str, ...] = (),
    common_share: float = 0.0,
) -> WordPicture:
    """Makes one picture of a word of the split; of the training words that are not of the common
    ones, half are made up.

    Args:
        rng: the source of randomness.
        words: the words of that split.
        split: "train" or "test".
        size: side in pixels.
        long_share: share of the pictures for which only words of `MANY_LETTERS` are taken.
        common: common English words for training.
        common_share: share of the training words that are taken from them.
    """
    least = MANY_LETTERS if long_share and rng.random() < long_share else 3
    if split == "train" and common_share and rng.random() < common_share:
        return draw_word(rng, _at_least(rng, common, least), size)
    word = _at_least(rng, words, least)
    if split == "train" and rng.random() < 0.5:
        word = made_up_word(rng, least)
        while held_out("word", word):
            word = made_up_word(rng, least)
    return draw_word(rng, word, size)


def _at_least(rng: np.random.Generator, words: tuple[str, ...], letters: int) -> str:
    """Returns one of the words that have at least so many letters."""
    word = pick(rng, words)
    while len(word) < letters:
        word = pick(rng, words)
    return word


def letter_ids(word: str) -> np.ndarray:
    """Returns int32[6]: 1 to 26 for letters, 0 after the end.

    Example:
        >>> letter_ids("cab").tolist()
        [3, 1, 2, 0, 0, 0]
    """
    ids = np.zeros(MAX_LETTERS, np.int32)
    ids[: len(word)] = [LETTERS.index(letter) + 1 for letter in word]
    return ids


def caption(shown: str) -> str:
    """Returns "The word LEMON."."""
    return sentence(f"the word {shown}")


def word_turns(
    rng: np.random.Generator, word: str, count: int, upper: bool = False
) -> list[tuple[str, str, str]]:
    """Returns (type, question, answer): the word always, then letters and their number.

    Args:
        rng: the source of randomness.
        word: the word in lower case.
        count: how many turns.
        upper: answer in capitals.
    """
    shown = word.upper() if upper else word
    turns = [("read", pick(rng, READ_QUESTIONS), shown)]
    place = int(rng.integers(len(word)))
    last = place == len(word) - 1 and rng.random() < 0.5
    ordinal = "last" if last else _ORDINALS[place]
    more = [("letters", pick(rng, COUNT_QUESTIONS), str(len(word)))]
    more.append(("letter", f"what is the {ordinal} letter?", shown[place]))
    more.append(("spell", "spell the word.", " ".join(shown)))
    more.append(("caption", pick(rng, CAPTION_QUESTIONS), caption(shown)))
    return turns + [more[int(i)] for i in rng.permutation(len(more))[: count - 1]]
