"""`fastvlm serve`, from the command line to an answer, and to its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

from dl_techniques.cli.main import main
from dl_techniques.serving.http.listening import open_port

pytestmark = pytest.mark.once


def test_it_serves_until_it_is_told_to_stop(tiny_preset, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    command = [sys.executable, "-m", "dl_techniques", "serve", "--preset", tiny_preset]
    command += ["--port", "0", "--rows", "2", "--piece", "16", "--log-dir", str(tmp_path / "logs")]
    command += ["--token-file", str(token), "--name", "small"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        address = next(m[0] for m in (re.search(r"http://\S+/v1", line) for line in lines) if m)
        assert any("ready: 2 rows" in line for line in lines)
        headers = {"Authorization": "Bearer s3cret"}
        body = {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 3}
        got = httpx.post(f"{address}/chat/completions", json=body, headers=headers, timeout=60)
        assert got.status_code == 200 and got.json()["model"] == "small"
        start = time.perf_counter()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == -signal.SIGTERM and time.perf_counter() - start < 12
    finally:
        server.kill()
        server.wait()
    log = (tmp_path / "logs" / "server.log").read_text(encoding="utf-8")
    assert "status=200" in log and "ready:" in log and "s3cret" not in log
    assert "Traceback" not in log


def test_what_cannot_be_served(tiny_preset, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FASTVLM_TOKEN", raising=False)
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    with open_port("127.0.0.1", 0) as taken:
        for options, said in (
            (["--port", str(taken.getsockname()[1])], "name another one by --port"),
            (["--host", "0.0.0.0"], "set FASTVLM_TOKEN"),
            (["--token-file", str(tmp_path / "none")], "see --token-file"),
            (["--token-file", str(empty)], "is empty"),
            (["--certfile", str(empty)], "https needs both"),
            (["--piece", "48"], "piece must be a power of two"),
        ):
            assert main(["serve", "--preset", tiny_preset, *options]) == 2
            assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "--port", "70000"])
    assert "from 0 to 65535" in capsys.readouterr().err


def test_without_its_extra(tiny_preset, capsys, monkeypatch):
    monkeypatch.setattr("dl_techniques.cli.commands.serve.NEEDED", ("no_such_module",))
    assert main(["serve", "--preset", tiny_preset]) == 2
    assert "[serve]" in capsys.readouterr().err
    assert os.environ is not None
