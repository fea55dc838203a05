"""Everything that answers is asked in one way, and answers what it does by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dl_techniques.errors import PresetError
from dl_techniques.evaluation import QuestionRecord, QuestionSet, evaluate_set
from dl_techniques.evaluation.answerer import (
    Answerer,
    EngineAnswerer,
    KerasAnswerer,
    LiteRTAnswerer,
    open_answerer,
)
from dl_techniques.loading import Sampling
from tests.export.litert_vlm.small_export import QUESTION, needs_tensorflow, small_export
from tests.export.small_exports import small
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

QUESTIONS = ["what is this?", "a cube?"]


def check(answerer: Answerer, limit: int) -> None:
    """A stream of one question is its answer, whatever stands behind."""
    assert isinstance(answerer, Answerer)
    images = [[picture] for picture in pictures(2)]
    answers = answerer.answer(QUESTIONS, images, limit)
    for question, few, answer in zip(QUESTIONS, images, answers, strict=True):
        assert "".join(answerer.stream(question, few, limit)) == answer


@pytest.mark.once
def test_a_keras_model_answers() -> None:
    model = make_model()
    model.compile(sampler="greedy")
    check(KerasAnswerer(model), 4)
    images = pictures(2)
    asked = {"prompts": QUESTIONS, "images": [[image] for image in images]}
    right = model.generate(asked, max_new_tokens=3)
    short = KerasAnswerer(model, 3)
    assert short.answer(QUESTIONS, [[image] for image in images]) == list(right)
    assert short.stream(QUESTIONS[0], images[:1]).text == ""
    told = short.answer_with_certainty(QUESTIONS, [[image] for image in images])
    assert [text for text, _ in told] == list(right)
    assert all(0 < certainty <= 1 for _, certainty in told)
    with open_answerer(model) as answerer:
        assert isinstance(answerer, KerasAnswerer) and answerer.model is model


def test_a_preset_answers_greedily_and_fused(tmp_path: Path) -> None:
    model = make_model()
    model.save_to_preset(tmp_path / "preset")
    model.save(tmp_path / "a.keras")
    images = [[picture] for picture in pictures(2)]
    model.compile(sampler="greedy")
    right = KerasAnswerer(model).answer(QUESTIONS, images, 4)
    for name in ("preset", "a.keras"):
        with open_answerer(tmp_path / name) as answerer:
            assert answerer.answer(QUESTIONS, images, 4) == right


@pytest.mark.once
def test_what_answers_no_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="is a FastVLM, which answers no questions; expected"):
        with open_answerer(small()):
            pass


@pytest.mark.once
def test_a_set_is_asked_of_an_answerer_as_of_a_function(tmp_path: Path) -> None:
    class Middle:
        """Says the red value of the picture's middle."""

        def stream(self, question: Any, pictures: Any, max_new_tokens: Any = None) -> Iterator[Any]:  # type: ignore[no-untyped-def]
            yield self.answer([question], [pictures])[0]

        def answer(self, questions: Any, pictures: Any, max_new_tokens: Any = None) -> Any:  # type: ignore[no-untyped-def]
            return [str(int(few[0][2, 2, 0])) for few in pictures]

    records = []
    for red in (10, 20, 30):
        Image.new("RGB", (5, 5), (red, 0, 0)).save(tmp_path / f"{red}.png")
        records.append(QuestionRecord(tmp_path / f"{red}.png", "How red?", str(red), "10"))
    questions = QuestionSet("red", tuple(records))

    def asked(texts: list[str], images: list[np.ndarray]) -> list[str]:
        return Middle().answer(texts, [[image] for image in images])

    found = [evaluate_set(how, questions, 2).answers for how in (Middle(), asked)]
    assert found[0] == found[1] == ["10", "20", "30"]


@needs_tensorflow
@pytest.mark.full
def test_an_exported_folder_answers(tmp_path: Path) -> None:
    export = small_export()
    image = pictures(1)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    with open_answerer(export.folder, threads=1) as answerer:
        assert isinstance(answerer, LiteRTAnswerer)
        check(answerer, 4)
        sources = [[image], [tmp_path / "a.png"], [(tmp_path / "a.png").read_bytes()]]
        answers = answerer.answer([QUESTION] * 3, sources, 4)
    assert len(set(answers)) == 1
    export.model.compile(sampler="greedy")
    assert KerasAnswerer(export.model).answer([QUESTION], [[image]], 4) == answers[:1]


@needs_tensorflow
@pytest.mark.full
def test_a_bundle_answers() -> None:
    from tests.export.litertlm.small_bundle import small_bundle

    with open_answerer(small_bundle().path, threads=1) as answerer:
        assert isinstance(answerer, EngineAnswerer)
        check(answerer, 4)


@pytest.mark.once
def test_a_preset_draws_as_it_is_told(tmp_path: Path) -> None:
    make_model().save_to_preset(tmp_path / "preset")
    images = [[picture] for picture in pictures(2)]
    answers = []
    for seed in (1, 1, 2):
        drawn = Sampling(temperature=50.0, seed=seed)
        with open_answerer(tmp_path / "preset", sampling=drawn, fuse=False) as answerer:
            assert isinstance(answerer, KerasAnswerer) and not answerer.model.reparameterized
            answers.append(answerer.answer(QUESTIONS, images, 6))
    assert answers[0] == answers[1] != answers[2]
