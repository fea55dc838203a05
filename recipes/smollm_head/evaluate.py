"""Answers to easy-VQA's test questions, beside what can be guessed without the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dl_techniques.evaluation.metrics import majority_answer, normalise, wilson_interval
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from recipes.demo.benchmark import QuestionOnly
from recipes.smollm_head.data import Questions

Hits = dict[str, np.ndarray]


def answers_of(
    vlm: FastVLMCausalLM, questions: Questions, pictures: Sequence[int], batch: int = 16
) -> list[str]:
    """The model's own answers, each question on the picture beside it."""
    answers: list[str] = []
    for start in range(0, len(questions.items), batch):
        rows = range(start, min(start + batch, len(questions.items)))
        inputs = {
            "prompts": [questions.items[i][2] for i in rows],
            "images": [questions.images[pictures[i]] for i in rows],
        }
        answers += vlm.generate(inputs, max_new_tokens=4)
    return answers


def evaluate(vlm: FastVLMCausalLM, test: Questions, train: Questions) -> dict[str, Hits]:
    """Which questions were answered rightly: by the model, and by each of its baselines.

    Args:
        vlm: the trained model.
        test: the questions to answer.
        train: the training questions, from which the question-only baseline learns.

    Returns:
        Type of question (and `all`) -> way of answering -> bool[questions of the type].
    """
    pictures = [item[0] for item in test.items]
    guess = QuestionOnly.learn(item[1:] for item in train.items)
    frequent = majority_answer([item[3] for item in train.items])
    ways = {
        "model": answers_of(vlm, test, pictures),
        "question only": [guess(kind, question) for _, kind, question, _ in test.items],
        "most frequent answer": [frequent] * len(test.items),
        "pictures exchanged": answers_of(vlm, test, pictures[1:] + pictures[:1]),
    }
    right = {
        name: np.asarray(
            [
                normalise(answer) == normalise(item[3])
                for answer, item in zip(said, test.items, strict=True)
            ]
        )
        for name, said in ways.items()
    }
    kinds = np.asarray([item[1] for item in test.items])
    chosen = {"all": np.ones(len(kinds), bool)} | {k: kinds == k for k in sorted(set(kinds))}
    return {
        kind: {name: hits[rows] for name, hits in right.items()} for kind, rows in chosen.items()
    }


def report(results: dict[str, Hits]) -> str:
    """A table in Markdown: rates in percent, the model's with its 95 % interval."""
    names = list(next(iter(results.values())))
    lines = ["| questions | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for kind, hits in results.items():
        count = len(hits[names[0]])
        low, high = wilson_interval(int(hits[names[0]].sum()), count)
        first = f"{100 * hits[names[0]].mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"
        others = [f"{100 * hits[name].mean():.1f}" for name in names[1:]]
        lines.append(f"| {kind} | {count} | " + " | ".join([first, *others]) + " |")
    return "\n".join(lines)
