"""A server as an `Answerer`, and the commands that ask one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dl_techniques.cli.main import main
from dl_techniques.errors import ImageError, ServingError
from dl_techniques.evaluation.answerer import Answerer
from dl_techniques.hosts.server import ServerAnswerer, data_uri_of
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.engine import Engine, EngineOptions
from dl_techniques.serving.http.app import ServiceOptions
from dl_techniques.serving.http.guards import Guard
from tests.models.vlm.fast_vlm.small_model import make_model, pictures
from tests.serving.http.running import serving

pytestmark = pytest.mark.once

PICTURES = pictures(3, 17)
QUESTIONS = ["Why?", "What is it?", "Why is the cat on the mat?"]


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def address(model: Any) -> Iterator[Any]:
    engine = Engine(model, EngineOptions(rows=2, piece=32))
    engine.start()
    assert engine.wait_until_ready(120)
    with serving(engine, ServiceOptions(guard=Guard("s3cret")), owned=True, drain=0.1) as (url, _):
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Any:
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.fromarray(PICTURES[0]).save(path)
    return str(path)


def test_it_answers_as_the_model_does(model: Any, address: Any) -> None:
    server = ServerAnswerer(address + "/v1/", max_new_tokens=7, token="s3cret")
    assert isinstance(server, Answerer)
    inputs = {"prompts": QUESTIONS, "images": [[p] for p in PICTURES]}
    expected = model.generate(inputs, max_new_tokens=7)
    assert server.answer(QUESTIONS, [[p] for p in PICTURES]) == expected
    stream = server.stream(QUESTIONS[1], [PICTURES[1]])
    assert "".join(stream) == stream.text == expected[1]
    assert 0 < stream.tokens <= 7 and stream.finish_reason in ("stop", "length")
    assert list(stream) == []
    drawn = server.stream("Why?", [], 5, temperature=1.0, seed=3)
    settings = RowSettings(temperature=1.0, seed=3, max_new_tokens=5)
    assert "".join(drawn) == model.generate("Why?", settings=settings)


def test_what_a_server_refuses(address: Any) -> None:
    with pytest.raises(ServingError, match="refused .401.: the token is missing or wrong"):
        ServerAnswerer(address, token="other").answer(["Why?"], [[]])
    server = ServerAnswerer(address, token="s3cret")
    with pytest.raises(ServingError, match="refused .400.: temperature"):
        server.stream("Why?", [], temperature=-1)
    with pytest.raises(ServingError, match="is `fastvlm serve` running"):
        ServerAnswerer("http://127.0.0.1:9").answer(["Why?"], [[]])
    with pytest.raises(ServingError, match="expected an address"):
        ServerAnswerer("localhost:5000")
    with pytest.raises(ImageError, match="does not exist"):
        server.answer(["Why?"], [["no-such.png"]])


def test_files_are_sent_as_they_are(file: Any) -> None:
    import base64

    sent = base64.b64decode(data_uri_of(file).partition(",")[2])
    assert sent == Path(file).read_bytes()


def test_the_commands_ask_it(
    model: Any,
    address: Any,
    file: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FASTVLM_TOKEN", "s3cret")
    asked = ["--server", address, "--max-new-tokens", "6"]
    expected = model.generate({"prompts": "Why?", "images": PICTURES[0]}, max_new_tokens=6)
    assert main(["ask", file, "Why?", *asked]) == 0
    assert capsys.readouterr().out == expected + "\n"
    assert main(["ask", file, "Why?", *asked, "--json", "--temperature", "1", "--seed", "2"]) == 0
    settings = RowSettings(temperature=1.0, seed=2, max_new_tokens=6)
    drawn = model.generate({"prompts": "Why?", "images": PICTURES[0]}, settings=settings)
    record = json.loads(capsys.readouterr().out)
    assert record["text"] == drawn and record["tokens"] > 0
    assert main(["benchmark", file, *asked, "--question", "Why?", "--repeats", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["answers"] == 2 and report["tokens"] > 0 and report["first_token_seconds"] > 0
    assert main(["ask", file, "Why?", "--server", address, "--logprobs", "1", "--json"]) == 2
    assert "leave one of them out" in capsys.readouterr().err


def test_a_set_is_evaluated(
    model: Any,
    address: Any,
    file: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FASTVLM_TOKEN", "s3cret")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "picture.png").write_bytes(Path(file).read_bytes())
    right = model.generate({"prompts": "Why?", "images": PICTURES[0]}, max_new_tokens=6)
    lines = [
        json.dumps({"image": "picture.png", "question": "Why?", "answer": answer})
        for answer in (right, "x y")
    ]
    (folder / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = ["evaluate", "--data", str(folder), "--server", address, "--max-new-tokens", "6"]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["preset"] == address and report["sets"][0]["n"] == 2
