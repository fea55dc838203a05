"""Questions about the shape and the colour of easy-VQA's pictures, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLMPreprocessor
from recipes.demo.draw.easy_vqa import load_easy_vqa, question_type

TYPES = ("colour", "shape", "yes_no")


@dataclass(frozen=True)
class Questions:
    """Questions of one split.

    Attributes:
        images: uint8[N, 64, 64, 3].
        items: (picture, type, question, answer) of every question.
        words: of every picture, the colour and the shape that its questions give away.
    """

    images: np.ndarray
    items: list[tuple[int, str, str, str]]
    words: list[list[str]] = field(default_factory=list)

    def chosen(self, count: int, seed: int) -> Questions:
        """So many questions, drawn at random."""
        order = np.random.default_rng(seed).permutation(len(self.items))[:count]
        return Questions(self.images, [self.items[i] for i in order], self.words)


def load_questions(data: Path, split: str, types: tuple[str, ...]) -> Questions:
    """Reads a split of easy-VQA.

    Args:
        data: folder with `raw/easy_vqa-*.whl`.
        split: `train` or `test`.
        types: which kinds of question, of `TYPES`.
    """
    source = load_easy_vqa(data, split)
    items = [
        (number, question_type(pair), *pair)
        for number, pairs in enumerate(source.questions)
        for pair in pairs
    ]
    told = zip(source.colours, source.shapes, strict=True)
    words = [[word for word in pair if word is not None] for pair in told]
    return Questions(source.images, [item for item in items if item[1] in types], words)


@dataclass(frozen=True)
class Encoded:
    """Conversations as arrays, padded to one length.

    Attributes:
        token_ids: int32[M, L].
        padding_mask: bool[M, L].
        vision_indices: int32[M, T].
        places: int32[M, K], the positions whose next token is learned; 0 where there is none.
        targets: int32[M, K].
        weights: float32[M, K], 1 where a token is learned.
    """

    token_ids: np.ndarray
    padding_mask: np.ndarray
    vision_indices: np.ndarray
    places: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def encode(preprocessor: FastVLMCausalLMPreprocessor, questions: Questions) -> Encoded:
    """Renders and tokenizes every question with its answer."""
    tokenizer = preprocessor.tokenizer
    rows = []
    for _, _, question, answer in questions.items:
        turns = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        segments = preprocessor.render(turns, 1, preprocessor.system_prompt, answer_next=False)
        rows.append(preprocessor.encode_segments(segments))
    longest = max(len(ids) for ids, _ in rows)
    learned = max(int(learn.sum()) for _, learn in rows)
    made = Encoded(
        np.full((len(rows), longest), tokenizer.pad_token_id, "int32"),
        np.zeros((len(rows), longest), bool),
        np.zeros((len(rows), preprocessor.num_image_tokens), "int32"),
        np.zeros((len(rows), learned), "int32"),
        np.zeros((len(rows), learned), "int32"),
        np.zeros((len(rows), learned), "float32"),
    )
    for i, (ids, learn) in enumerate(rows):
        made.token_ids[i, : len(ids)] = ids
        made.padding_mask[i, : len(ids)] = True
        made.vision_indices[i] = np.flatnonzero(ids == tokenizer.image_token_id)
        where = np.flatnonzero(learn)
        made.places[i, : len(where)] = where - 1
        made.targets[i, : len(where)] = ids[where]
        made.weights[i, : len(where)] = 1
    return made
