"""The tool that prints what a bundle costs and answers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dl_techniques.hosts.litertlm_apart import Answer, Turn
from tests.export.litertlm.small_bundle import QUESTIONS, needs_tensorflow, talkative_model
from tests.models.vlm.fast_vlm.small_model import pictures
from tools import litertlm_check


def test_differences_name_the_picture_and_both_answers() -> None:
    turns = [Turn("what?", (np.zeros((2, 2, 3), "uint8"),)), Turn("why?")]
    keras, engine = [Answer([1], "cat"), Answer([1], "so")], [Answer([1], "dog"), Answer([1], "so")]
    lines = litertlm_check.differences(["a.png", "b.png"], turns, keras, engine)
    assert lines == ["  a.png, 'what?': Keras 'cat', engine 'dog'"]


def test_an_unknown_preset_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert litertlm_check.main(["--preset", "no_such_preset"]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 1


@needs_tensorflow
@pytest.mark.full
def test_table(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, model = tmp_path_factory.mktemp("pictures"), talkative_model()
    monkeypatch.setattr(litertlm_check.FastVLMCausalLM, "from_preset", lambda name: model)
    paths = [str(folder / f"{i}.png") for i in range(2)]
    for path, picture in zip(paths, pictures(2), strict=True):
        Image.fromarray(picture).save(path)
    arguments = ["--precisions", "float32", "--max-new-tokens", "4", "--pictures", *paths]
    assert litertlm_check.main([*arguments, "--questions", *QUESTIONS]) == 0
    out = capsys.readouterr().out
    assert "all answers equal" in out
    assert "| 4 of 4 |" in out.splitlines()[-1]
