"""The engine in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.hosts.litertlm_apart import Turn, _reason, engine_answers
from tests.export.litertlm.small_bundle import LIMIT, QUESTIONS, needs_tensorflow, small_bundle
from tests.models.vlm.fast_vlm.small_model import pictures


@needs_tensorflow
def test_conversations_do_not_know_of_each_other() -> None:
    turns = [Turn(QUESTIONS[0], (pictures(1)[0],)), Turn(QUESTIONS[1])]
    alone = [Turn(QUESTIONS[1])]
    both, again, single = engine_answers(small_bundle().path, [turns, turns, alone], LIMIT)
    assert both == again
    assert both[1].prompt[: len(both[0].prompt)] == both[0].prompt
    assert len(single[0].prompt) < len(both[1].prompt)
    assert -1 not in single[0].prompt


def test_an_error_of_the_other_process_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("litert_lm")
    path = tmp_path / "m.litertlm"
    path.write_bytes(b"no bundle")
    with pytest.raises(ExportError, match="does not run .* is no LiteRT-LM bundle") as caught:
        engine_answers(path, [[Turn("What?")]], LIMIT)
    assert "\n" not in str(caught.value)


def test_the_native_reason_is_told() -> None:
    log = "E0000 engine.cc:854] Failed: ERROR\n└ must have one input\n=== Trace ===\nrefused\n\n"
    assert _reason(log) == "refused; must have one input"
    assert _reason("") == ""
