"""Questions about scenes, the word in them that names something, and the words that answer it."""

from __future__ import annotations

import numpy as np
from keras import ops

from dl_techniques import FastVLMCausalLM
from tools.demo_model.records import DemoData
from tools.demo_model.scene_geometry import place_of
from tools.demo_model.scene_questions import ASKERS
from tools.demo_model.scenes import Scene, Thing

ASKED = {"where": 0.45, "colour": 0.15, "shape": 0.15, "what_at": 0.15, "bigger": 0.1}


def asked_word(
    model: FastVLMCausalLM, data: DemoData, rng: np.random.Generator, number: int
) -> tuple[np.ndarray, str, int, np.ndarray] | None:
    """A picture, a question, the token that names something in it, and the sum of the words for it.

    None where the question cannot be asked of this scene, or its last word means several objects.
    """
    scene: Scene = data.sample("scenes", "train", number, rng).fact
    kind = str(rng.choice(list(ASKED), p=list(ASKED.values())))
    turn = ASKERS[kind][0](rng, scene)
    if turn is None:
        return None
    question, answer = turn
    last = question.rstrip("?").split()[-1]
    by_noun = kind in ("where", "colour", "bigger")
    meant = [thing for thing in scene.things if _is_meant(thing, kind, question, answer)]
    if len(meant) != 1:
        return None
    word = meant[0].name if by_noun else meant[0].colour if kind == "shape" else last
    token = model.preprocessor.tokenizer(f" {word}")[-1]
    words = described(model, meant[0]) if by_noun else embedded(model, answer)
    return scene.image, question, token, words


def _is_meant(thing: Thing, kind: str, question: str, answer: str) -> bool:
    """Whether the last word that names something in a question may mean this object."""
    if kind == "shape":
        return thing.colour is not None and thing.colour in question
    if kind == "what_at":
        return thing.phrase == answer
    return question.rstrip("?").endswith(thing.name)


def described(model: FastVLMCausalLM, thing: Thing) -> np.ndarray:
    """float[hidden]: the words for an object's place, colour and size, one upon the other."""
    place = place_of(thing)
    words = embedded(model, place) if place else 0.0
    words = words + (0.7 * embedded(model, thing.colour) if thing.colour else 0.0)
    larger = embedded(model, " bigger") - embedded(model, " smaller")
    return np.asarray(words + 0.5 * (2 * (thing.size - 0.2) / 0.52 - 1) * larger)


def embedded(model: FastVLMCausalLM, text: str) -> np.ndarray:
    """float[hidden]: the sum of a text's embeddings."""
    table = model.backbone.text_backbone.token_embedding.embeddings
    tokens = np.asarray(model.preprocessor.tokenizer(text))
    rows: np.ndarray = ops.convert_to_numpy(ops.take(table, tokens, axis=0)).sum(0)
    return rows
