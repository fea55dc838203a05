"""The table of formats, and what it refuses."""

from __future__ import annotations

import sys

import pytest

from dl_techniques.errors import ExportError, MissingExtraError, install_hint
from dl_techniques.export import formats
from dl_techniques.export.formats import FORMATS, check_extra, check_pair, format_of, installed
from dl_techniques.export.litert import litert_precision


def test_unknown_formats_name_the_nearest() -> None:
    with pytest.raises(ExportError, match="did you mean 'onnx'.*litert.*torch"):
        format_of("onx")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_its_own_table(name: str) -> None:
    form = format_of(name)
    assert form.name == name and form.precisions and form.parts
    assert set(form.precisions) <= set(formats.PRECISIONS)
    assert set(form.parts) <= set(formats.PARTS)
    for part in ("auto", *form.parts):
        for precision in form.precisions:
            check_pair(form, part, precision, form.free_batch)


def test_impossible_pairs_say_what_is_possible() -> None:
    with pytest.raises(ExportError, match="'int8'.*it can float32"):
        check_pair(format_of("saved_model"), "auto", "int8", False)
    with pytest.raises(ExportError, match="no part 'vlm'.*classifier, features, encoder"):
        check_pair(format_of("onnx"), "vlm", "float32", False)
    with pytest.raises(ExportError, match="batch of 1.*litert, onnx, openvino"):
        check_pair(format_of("coreml"), "auto", "float16", True)


def test_the_words_are_those_of_litert() -> None:
    assert formats.PRECISIONS == litert_precision.PRECISIONS
    assert format_of("litert").precisions == litert_precision.PRECISIONS


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_package_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form = format_of(name)
    missing = (form.backend, *form.modules)[-1]
    monkeypatch.setattr(formats, "installed", lambda module: module != missing)
    with pytest.raises(MissingExtraError) as error:
        check_extra(form)
    message = str(error.value)
    assert missing in message and install_hint(form.extra) in message
    assert error.value.name == missing and "\n" not in message


def test_a_hidden_package_is_still_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    assert installed("json") and not installed("no_such_package_anywhere")
