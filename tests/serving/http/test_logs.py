"""One line a request, files that do not grow for ever, and nobody's words in them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import pytest

from dl_techniques.errors import ServingError
from dl_techniques.serving.http import logs
from dl_techniques.serving.http.app import ServiceOptions
from tests.models.vlm.fast_vlm.small_model import pictures
from tests.serving.http.pictures_in_text import data_uri, part, text
from tests.serving.http.running import serving

pytestmark = pytest.mark.once

PICTURE = data_uri(pictures(1, 2)[0])


def lines_of(caplog: pytest.LogCaptureFixture, number: int) -> list[str]:
    """The service's lines, once there are so many: each is written after its reply is sent."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        records = list(caplog.records)
        lines = [r.getMessage() for r in records if r.name == "dl_techniques.serving"]
        if len(lines) >= number:
            return lines
        time.sleep(0.01)
    raise AssertionError(f"expected {number} lines, got {lines}")


@pytest.fixture
def root():
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


def messages(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """What a logger has said."""
    return [r.getMessage() for r in caplog.records if r.name == name]


def eventually(count: int, look: Callable[[], list[str]]) -> list[str]:
    """So many lines: the line of a request is written when its answer has been sent already."""
    end = time.monotonic() + 10
    while len(look()) < count and time.monotonic() < end:
        time.sleep(0.01)
    lines = look()
    assert len(lines) == count
    return lines


def test_one_line_a_request_without_its_words(ask, caplog):
    with caplog.at_level(logging.INFO, "dl_techniques.serving"):
        ask([part(PICTURE), text("What is my secret?")])
        ask(temperature="hot", stop="other secret")
        ask("Why\nnot?", stream=True)
        lines = eventually(3, lambda: messages(caplog, "dl_techniques.serving"))
    told = dict(pair.split("=", 1) for pair in lines[0].split(" "))
    assert told["client"] == "127.0.0.1" and told["status"] == "200"
    assert told["pictures"] == "1" and told["sizes"] == "40x24" and told["finish"] != "error"
    assert int(told["picture_bytes"]) > 100 and int(told["tokens"]) > 0
    for name in ("prepare_ms", "queue_ms", "ttft_ms", "total_ms"):
        assert float(told[name]) >= 0
    assert "status=400" in lines[1] and "finish=" in lines[2]
    everything = "\n".join(lines)
    assert "secret" not in everything and "base64" not in everything and "not?" not in everything
    assert "\nnot" not in everything


def test_words_where_they_are_wanted(engine, caplog):
    import httpx

    with serving(engine, ServiceOptions(name="tiny", log_content=True)) as (url, _):
        content = [part(PICTURE), text("Why\nnot?")]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
        with caplog.at_level(logging.INFO, "dl_techniques.serving"):
            httpx.post(f"{url}/v1/chat/completions", json=body)
            (line,) = eventually(
                1,
                lambda: [m for m in messages(caplog, "dl_techniques.serving") if "messages=" in m],
            )
    assert "Why\\\\nnot?" in line or "Why\\nnot?" in line
    assert "base64" not in line and "\n" not in line and "answer=" in line


def test_queries_of_addresses_stay_out(client, caplog):
    with caplog.at_level(logging.INFO):
        client.get("/v1/models?token=secret")
        eventually(1, lambda: messages(caplog, "dl_techniques.serving"))
    # The client of this test logs its own addresses.
    ours = [r.getMessage() for r in caplog.records if r.name != "httpx"]
    assert any("/v1/models" in line for line in ours)
    assert not any("secret" in line for line in ours)


def test_files_are_rotated(tmp_path, root, monkeypatch, capsys):
    monkeypatch.setattr(logs, "BYTES", 2000)
    path = logs.set_up_logs(tmp_path / "new" / "folder")
    for i in range(400):
        logging.getLogger("some").info("line %d of many that are as long as this one", i)
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == ["server.log", *(f"server.log.{i}" for i in range(1, 6))]
    assert all(file.stat().st_size <= 2000 for file in path.parent.iterdir())
    assert "INFO some: line 399" in path.read_text(encoding="utf-8")


def test_the_console_has_a_mark_for_every_level(root, tmp_path, capsys):
    logs.set_up_logs(tmp_path)
    logging.getLogger("some").error("wrong")
    logging.getLogger("some").info("right")
    shown = [line for line in capsys.readouterr().err.splitlines() if " some: " in line]
    assert [line[0] for line in shown] == [logs.MARKS[logging.ERROR], logs.MARKS[logging.INFO]]
    assert sys.stderr is not None


def test_a_folder_that_cannot_be_written(tmp_path, root):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ServingError, match="name a folder by --log-dir"):
        logs.set_up_logs(tmp_path / "file")
