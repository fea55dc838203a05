"""The bar is for people: invisible in a pipe, gone when the work is done."""

from __future__ import annotations

import io

import pytest

from dl_techniques.cli.progress import WIDTH, Progress

pytestmark = pytest.mark.once


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_written_to_a_pipe() -> None:
    stream = io.StringIO()
    with Progress("pictures", 3, stream) as bar:
        bar.advance(3)
    assert stream.getvalue() == ""


def test_the_bar_fills_and_disappears() -> None:
    stream = Terminal()
    with Progress("pictures", 4, stream) as bar:
        bar.advance(2)
        assert bar.text() == f"pictures [{'#' * (WIDTH // 2)}{'.' * (WIDTH // 2)}] 2/4"
        bar.advance(2)
    drawn = stream.getvalue()
    assert f"[{'#' * WIDTH}] 4/4" in drawn
    assert drawn.endswith("\r\x1b[2K")


def test_unknown_length_and_overrun() -> None:
    assert Progress("loading").text() == "loading ..."
    bar = Progress("steps", 2, io.StringIO())
    bar.advance(5)
    assert bar.text() == f"steps [{'#' * WIDTH}] 5/2"
