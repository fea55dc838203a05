"""Requests check themselves and travel as JSON."""

from __future__ import annotations

import json

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.request import ExportRequest


def test_the_default_precision_is_the_formats() -> None:
    assert ExportRequest("onnx").precision == "float32"
    assert ExportRequest("coreml").precision == "float16"


def test_there_and_back() -> None:
    request = ExportRequest("litert", "vlm", "int8", 64, options={"cache_length": 128})
    assert ExportRequest(**json.loads(json.dumps(request.to_json()))) == request


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"format": "litert", "options": {"cache_size": 3}},
            "cache_size.*it knows prefill_lengths",
        ),
        ({"format": "onnx", "options": {"question": "?"}}, "question.*none"),
        ({"format": "onnx", "image_size": 0}, "at least 1 pixel, got 0"),
        ({"format": "onnx", "gate": 0.0}, "above 0, got 0.0"),
        ({"format": "onnx", "gate": float("nan")}, "above 0, got nan"),
        ({"format": "litert", "precision": "int8_static"}, "calibration.*int8 needs none"),
        ({"format": "torch", "precision": "float16"}, "it can float32"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        ExportRequest(**arguments)
