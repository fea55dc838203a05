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
from dl_techniques.errors import PresetError, SamplingError
from dl_techniques.loading.source import LITERT, LITERTLM, OF_OTHER_RUNTIMES, Source, find_quickly

if TYPE_CHECKING:
    import keras

    from dl_techniques.loading.for_answers import Sampling


KERAS = "keras"


class Pieces(Protocol):
    """One answer as it comes: an iterator over pieces of text.

    Attributes:
        text: the pieces so far, joined.
        tokens: number of tokens so far; None where the runtime does not tell it.
    """

    @property
    def text(self) -> str:
        """See the class."""

    @property
    def tokens(self) -> int | None:
        """See the class."""

    def __iter__(self) -> Iterator[str]: ...

    def __next__(self) -> str: ...


class TextPieces(Iterator[str]):
    """`Pieces` of a runtime that tells nothing but text.

    Args:
        pieces: of the answer.
    """

    text: str = ""
    tokens: int | None = None

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece


@runtime_checkable
class Answerer(Protocol):
    """Answers questions about pictures; greedy, unless what stands behind it draws.

    Attributes:
        runtime: what computes: "keras", "litert", "litertlm" or "server".
    """

    runtime: str

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> Pieces:
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

    runtime = KERAS

    def __init__(self, model: keras.Model, max_new_tokens: int | None = None) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens

    def stream(
        self,
        question: str,
        pictures: Sequence[ImageSource],
        max_new_tokens: int | None = None,
        **wanted: Any,
    ) -> Any:
        """A `TextStream`: the pieces, and afterwards its text and tokens.

        Args:
            question: text.
            pictures: what it is about; none for a question alone.
            max_new_tokens: longest answer.
            **wanted: further keywords of the model's `stream`.
        """
        inputs = {"prompts": question, "images": list(pictures) or None}
        longest = max_new_tokens or self.max_new_tokens
        return self.model.stream(inputs, max_new_tokens=longest, **wanted)

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
    ) -> TextPieces:
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

    runtime = LITERT

    def __init__(self, host: Any) -> None:
        self.host = host

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> TextPieces:
        """The pieces as the host decodes them; it reads files itself."""
        taken = [p if isinstance(p, (str, Path, np.ndarray)) else load_image(p) for p in pictures]
        return TextPieces(self.host.stream(taken, question, max_new_tokens))


class EngineAnswerer(_OneByOne):
    """A `.litertlm` bundle in the LiteRT-LM engine; every question is a conversation of its own.

    Args:
        chat: `hosts.litertlm.EngineChat`.
    """

    runtime = LITERTLM

    def __init__(self, chat: Any) -> None:
        self.chat = chat

    def stream(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None = None
    ) -> TextPieces:
        """The answer in one piece: the engine's own streams are not used here."""

        def whole() -> Iterator[str]:
            self.chat.reset()
            yield self.chat.ask(question, list(pictures), max_new_tokens=max_new_tokens)

        return TextPieces(whole())


@contextmanager
def open_answerer(
    source: Any,
    threads: int | None = None,
    *,
    sampling: Sampling | None = None,
    fuse: bool = True,
) -> Iterator[Answerer]:
    """What a source is, ready to answer; closed at the end of the block.

    Args:
        source: a `FastVLMCausalLM`, a preset of one, the folder that the format "litert" writes, or
            a `.litertlm` bundle.
        threads: of LiteRT and its engine; None for their choice.
        sampling: how a preset draws tokens; greedy unless said.
        fuse: whether a preset's encoder is fused.

    Raises:
        PresetError: nothing there, or nothing that answers questions.
        SamplingError: a file of another runtime, which takes the likeliest token, is to draw.
        MissingExtraError: its runtime is not installed.

    Example:
        >>> with open_answerer("demo") as answerer:  # doctest: +SKIP
        ...     print(answerer.answer(["What is this?"], [["cat.jpg"]]))
    """
    # A preset or checkpoint says itself what is wrong with it: looking through it first takes long.
    found = find_quickly(source)
    if found is not None and not found.answers_questions:
        raise PresetError(
            f"{found.path or source} is a {found.model}, which answers no questions; expected a "
            "FastVLMCausalLM, a preset of one, or its export to litert or litertlm"
        )
    if found is not None and found.kind in OF_OTHER_RUNTIMES:
        with _other_runtime(found, threads, sampling) as answerer:
            yield answerer
        return
    if found is not None and found.path is None:
        yield KerasAnswerer(source)
        return
    from dl_techniques.loading import for_answers

    model = for_answers.load_for_answers(source, fuse=fuse)
    for_answers.set_sampling(model, sampling or for_answers.Sampling())
    yield KerasAnswerer(model)


@contextmanager
def _other_runtime(
    found: Source, threads: int | None, sampling: Sampling | None
) -> Iterator[Answerer]:
    if sampling is not None and not sampling.greedy:
        raise SamplingError(
            f"{found.path} is answered by another runtime, which takes the likeliest token; leave "
            "out temperature, top-k, top-p and seed, or name the preset that it was exported from"
        )
    if found.kind == LITERT:
        from dl_techniques.hosts.litert import Host

        yield LiteRTAnswerer(Host(str(found.path), threads))
        return
    from dl_techniques.hosts.litertlm import EngineChat

    with EngineChat(str(found.path), threads=threads) as chat:
        yield EngineAnswerer(chat)
