"""The wordings of questions about photographs: those that are trained, and those only measured."""

from __future__ import annotations

import string

import numpy as np

from recipes.demo.draw import clothing, naming
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS, LIST_QUESTIONS

NAME = (
    "what is this?",
    "what is it?",
    "what's this?",
    "what is that?",
    "what is this a picture of?",
    "what is this a photo of?",
    "what is shown here?",
    "what is shown in the photo?",
    "what is shown in this picture?",
    "what is pictured here?",
    "what does this photo show?",
    "what can you see here?",
    "what do you see here?",
    "what do you see in this photo?",
    "what thing is this?",
    "what object is this?",
    "which object is in the picture?",
    "what is the object in the photo?",
    "what is the main thing in this picture?",
    "what is the subject of this photo?",
    "what do you call this?",
    "what is this called?",
    "what is the name of this?",
    "name this.",
    "name this thing.",
    "name what you see.",
    "name the object in the photo.",
    "identify this.",
    "identify the object in this image.",
    "tell me what this is.",
    "do you know what this is?",
    "please tell me what is in this photo.",
)
HELD_NAME = (
    "what am I looking at?",
    "can you say what this could be called?",
    "which thing did I photograph?",
    "what has been photographed here?",
    "give the name of what appears in the image.",
)
CLOTHES = (
    *clothing.NAME_QUESTIONS,
    "what clothes are these?",
    "what item of clothing is this?",
    "what piece of clothing is this?",
    "what type of clothing is this?",
    "which clothing is in the photo?",
    "which kind of clothing do you see?",
    "name this clothing.",
    "name this piece of clothing.",
    "tell me what clothing this is.",
    "what clothing is shown in the picture?",
    "what can you wear here?",
    "what is this thing to wear?",
    "what do you call this piece of clothing?",
    "identify the clothing in this photo.",
)
HELD_CLOTHES = (
    "which garment is this?",
    "what sort of garment am I looking at?",
    "what would you call these clothes?",
    "give the name of the clothing that appears in the image.",
    "can you say which item of clothing has been photographed?",
)
CONTENTS = (
    *LIST_QUESTIONS,
    "what is in this photo?",
    "what is in the photo?",
    "what is in this picture?",
    "what is there in the image?",
    "what things are in the photo?",
)
DESCRIBE = (
    *CAPTION_QUESTIONS,
    "describe this photo.",
    "describe the photo.",
    "describe this image.",
    "describe what you see.",
    "describe it.",
    "what does the photo show?",
    "tell me about this picture.",
    "write a caption.",
)
PERSON = (
    "is there a person?",
    "is there a person in the photo?",
    "is there a person in the picture?",
    "is a person in this photo?",
    "do you see a person?",
    "can you see a person here?",
    "is there anybody in the picture?",
    "is there anyone in this photo?",
    "is somebody in the photo?",
    "are there people in the picture?",
    "are there any people?",
    "does this photo show a person?",
)
IS_THERE = (
    "{be} there {thing}?",
    "{be} there {thing} in the picture?",
    "{be} there {thing} in the photo?",
    "{be} {this} {thing}?",
    "do you see {thing}?",
    "can you see {thing} here?",
    "does the photo show {thing}?",
)
GUESS = (
    "what could it be?",
    "what could this be?",
    "what might this be?",
    "what may it be?",
    "what is your best guess?",
    "take a guess: what is this?",
    "what does it look like?",
)
SURE = (
    "how sure are you?",
    "how sure are you what this is?",
    "how certain are you?",
    "are you sure what this is?",
    "how sure are you about it?",
)

PLACES = (
    "here", "in this photo", "in the photo", "in the picture", "in this picture", "in the image",
    "in this image", "in the photograph", "on this photo", "there", "in it",
)  # fmt: skip
ASKS = (
    "what is {seen} {place}?",
    "what {see} {place}?",
    "which {thing} is {seen} {place}?",
    "which {thing} {see} {place}?",
    "what sort of {thing} is {seen} {place}?",
    "what would you call {this}?",
    "what would people call {this}?",
    "what is the {thing} {place} called?",
    "what does {a} {photo} show?",
    "what does {a} {photo} contain?",
    "what is {a} {photo} of?",
    "what was {a} {photo} taken of?",
    "what is the main {thing} {place}?",
    "what {thing} is {this}?",
    "what is the word for {this}?",
    "how do you call {this}?",
    "{polite} what {this} is.",
    "{polite} what is {seen} {place}.",
    "{polite} what {a} {photo} shows.",
    "{polite} the name of the {thing} {place}.",
    "{polite} what the {thing} {place} is called.",
    "name the {thing} {place}.",
    "identify {this}.",
    "identify the {thing} {place}.",
    "can you name {this}?",
    "can you see what {this} is?",
    "I wonder what {this} is.",
    "and {this}?",
)
PARTS = {
    "seen": ("shown", "to be seen", "visible", "pictured", "depicted", "there to see"),
    "see": ("can you see", "do you see", "can be seen", "can one see", "do you recognize"),
    "thing": ("thing", "object", "item", "subject", "main object", "main thing"),
    "this": ("this", "this", "that", "it", "this thing", "this object"),
    "a": ("this", "the", "that"),
    "photo": ("photo", "picture", "image", "photograph"),
    "polite": ("tell me", "please tell me", "please say", "say", "I want to know", "explain"),
    "place": PLACES,
}
"""What `ASKS` has in its places."""
WEARS = (
    "what {noun} is {this}?",
    "which {noun} is {this}?",
    "what {noun} is {seen} {place}?",
    "which {noun} {see} {place}?",
    "what kind of {noun} is {seen} {place}?",
    "what is this {noun} called?",
    "what would people call this {noun}?",
    "name the {noun} {place}.",
    "identify the {noun} {place}.",
    "{polite} what {noun} {this} is.",
    "{polite} which {noun} is {seen} {place}.",
    "what is being worn {place}?",
    "what could one wear {place}?",
)
NOUNS = (
    "clothing",
    "piece of clothing",
    "item of clothing",
    "article of clothing",
    "thing to wear",
)
MADE = 0.5
"""Share of the wordings that are put together."""

TRAINED = (
    *NAME, *CLOTHES, *CONTENTS, *DESCRIBE, *PERSON, *GUESS, *SURE,
    *naming.NAME_QUESTIONS, *naming.KIND_QUESTIONS, *naming.TAG_QUESTIONS,
)  # fmt: skip
"""All that training says word for word; `IS_THERE` has a thing put in."""

HELD_OUT = (*HELD_NAME, *HELD_CLOTHES)
"""What only measuring says."""


def of_name(rng: np.random.Generator, clothes: bool = False) -> str:
    """A question after what a picture is of: one of the lists, or put together.

    Example:
        >>> of_name(np.random.default_rng(3)) not in HELD_OUT
        True
    """
    listed, forms = (CLOTHES, WEARS) if clothes else (NAME, ASKS)
    if rng.random() >= MADE:
        return listed[int(rng.integers(len(listed)))]
    parts = {**PARTS, "noun": NOUNS}
    while True:
        chosen = {key: words[int(rng.integers(len(words)))] for key, words in parts.items()}
        question = forms[int(rng.integers(len(forms)))].format(**chosen)
        if bare(question) not in _HELD:
            return question


def bare(question: str) -> str:
    """A question without capitals and marks, to tell whether two are the same wording.

    Example:
        >>> bare("What's THIS")
        'whats this'
    """
    kept = question.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(kept.split())


def spoken(rng: np.random.Generator, question: str) -> str:
    """A question as people type it: with a capital or not, with its last mark or not.

    Example:
        >>> bare(spoken(np.random.default_rng(1), "what is this?"))
        'what is this'
    """
    way = rng.random()
    if way < 0.5:
        question = question[0].upper() + question[1:]
    elif way < 0.53:
        question = question.upper()
    return question[:-1] if rng.random() < 0.25 else question


_HELD = frozenset(bare(question) for question in HELD_OUT)
