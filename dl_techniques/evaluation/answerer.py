"""`Answerer`: whatever answers questions about pictures, asked in one way.

A Keras model, the folder of an exported model (LiteRT) and a `.litertlm` bundle (LiteRT-LM) are
ones; who measures or compares takes an `Answerer` and does not ask which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from dl_techniques.data.images import ImageSource, load_image
from dl_techniques.errors import PresetError
from dl_techniques.loading.source import LITERT, LITERTLM, find

if TYPE_CHECKING:
    import keras


@runtime_checkable
class Answerer(Protocol):
    """Answers questions about pictures; greedy, unless what stands behind it draws."""

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> Iterator[str]:
        """The pieces of one answer as they come.

        Args:
            question: text.
            pictures: what it is about; none for a question alone.
            max_new_tokens: longest answer; None for what the model says.
        """

    def answer(
        self,
        questions: Sequence[str],
        pictures: Sequence[Sequence[ImageSource]],
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """One answer a question.

        Args:
            questions: N texts.
            pictures: N lists, the pictures of each question.
            max_new_tokens: longest answer; None for what the model says.
        """


@runtime_checkable
class CertainAnswerer(Answerer, Protocol):
    """An `Answerer` that can tell how probable it is that its answers are right."""

    def answer_with_certainty(
        self,
        questions: Sequence[str],
        pictures: Sequence[Sequence[ImageSource]],
        max_new_tokens: int | None = None,
    ) -> list[tuple[str, float]]:
        """One answer a question, and its certainty in [0, 1].

        Args:
            questions: N texts.
            pictures: N lists, the pictures of each question.
            max_new_tokens: longest answer; None for what the model says.
        """


class KerasAnswerer:
    """A `FastVLMCausalLM`; all questions of a call are answered in one batch.

    Args:
        model: with a preprocessor.
        max_new_tokens: longest answer where a call says nothing; None for the model's own.
    """

    def __init__(self, model: keras.Model, max_new_tokens: int | None = None) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> Any:
        """A `TextStream`: the pieces, and afterwards its text and tokens."""
        inputs = {"prompts": question, "images": list(pictures) or None}
        return self.model.stream(inputs, max_new_tokens=max_new_tokens or self.max_new_tokens)

    def answer(
        self,
        questions: Sequence[str],
        pictures: Sequence[Sequence[ImageSource]],
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """One answer a question."""
        inputs = {"prompts": list(questions), "images": [list(few) for few in pictures]}
        longest = max_new_tokens or self.max_new_tokens
        return list(self.model.generate(inputs, max_new_tokens=longest))

    def answer_with_certainty(
        self,
        questions: Sequence[str],
        pictures: Sequence[Sequence[ImageSource]],
        max_new_tokens: int | None = None,
    ) -> list[tuple[str, float]]:
        """One answer a question, and its certainty; not by beam search, which has none."""
        inputs = {"prompts": list(questions), "images": [list(few) for few in pictures]}
        longest = max_new_tokens or self.max_new_tokens
        told = self.model.generate(inputs, max_new_tokens=longest, return_certainty=True)
        return [(answer.text, answer.certainty) for answer in told]


class _OneByOne:
    """Answers several questions one after the other."""

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> Iterator[str]:
        """The pieces of one answer."""
        raise NotImplementedError

    def answer(
        self,
        questions: Sequence[str],
        pictures: Sequence[Sequence[ImageSource]],
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """One answer a question."""
        return [
            "".join(self.stream(question, few, max_new_tokens))
            for question, few in zip(questions, pictures, strict=True)
        ]


class LiteRTAnswerer(_OneByOne):
    """The folder that the format "litert" writes, in LiteRT.

    Args:
        host: `hosts.litert.Host`.
    """

    def __init__(self, host: Any) -> None:
        self.host = host

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> Iterator[str]:
        """The pieces as the host decodes them; it reads files itself."""
        taken = [p if isinstance(p, (str, Path, np.ndarray)) else load_image(p) for p in pictures]
        pieces: Iterator[str] = self.host.stream(taken, question, max_new_tokens)
        return pieces


class EngineAnswerer(_OneByOne):
    """A `.litertlm` bundle in the LiteRT-LM engine; every question is a conversation of its own.

    Args:
        chat: `hosts.litertlm.EngineChat`.
    """

    def __init__(self, chat: Any) -> None:
        self.chat = chat

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> Iterator[str]:
        """The answer in one piece: the engine's own streams are not used here."""
        self.chat.reset()
        yield self.chat.ask(question, list(pictures), max_new_tokens=max_new_tokens)


@contextmanager
def open_answerer(source: Any, threads: int | None = None) -> Iterator[Answerer]:
    """What a source is, ready to answer; closed at the end of the block.

    Args:
        source: a `FastVLMCausalLM`, a preset of one, the folder that the format "litert" writes, or
            a `.litertlm` bundle.
        threads: of LiteRT and its engine; None for their choice.

    Raises:
        PresetError: nothing there, or nothing that answers questions.
        MissingExtraError: its runtime is not installed.

    Example:
        >>> with open_answerer("demo") as answerer:  # doctest: +SKIP
        ...     print(answerer.answer(["What is this?"], [["cat.jpg"]]))
    """
    found = find(source)
    if not found.answers_questions:
        raise PresetError(
            f"{found.path or source} is a {found.model}, which answers no questions; expected a "
            "FastVLMCausalLM, a preset of one, or its export to litert or litertlm"
        )
    if found.kind == LITERT:
        from dl_techniques.hosts.litert import Host

        yield LiteRTAnswerer(Host(str(found.path), threads))
    elif found.kind == LITERTLM:
        from dl_techniques.hosts.litertlm import EngineChat

        with EngineChat(str(found.path), threads=threads) as chat:
            yield EngineAnswerer(chat)
    elif found.path is None:
        yield KerasAnswerer(source)
    else:
        from dl_techniques.loading.for_answers import Sampling, load_for_answers

        yield KerasAnswerer(load_for_answers(found.path, sampling=Sampling()))
