"""describe, ask, chat, evaluate and benchmark, end to end on a tiny model with random weights."""

from __future__ import annotations

import functools
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from dl_techniques import Chat
from dl_techniques.cli import main, session
from dl_techniques.cli.commands import chat
from dl_techniques.hosts import litert
from dl_techniques.loading import for_answers

SHORT = ("--max-new-tokens", "6")


@pytest.fixture(autouse=True, scope="module")
def load_once() -> Iterator[None]:
    """Commands of this file share loaded models: every load would compile everything anew."""
    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(for_answers.load_for_answers)
        patch.setattr(for_answers, "load_for_answers", load)
        patch.setattr(session, "load_for_answers", load)
        yield


def fastvlm(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """Runs a command that must succeed; returns stdout and stderr."""
    capsys.readouterr()
    status = main.main(list(arguments))
    out, err = capsys.readouterr()
    assert status == 0, err
    return out, err


def test_describe_streams_what_generate_says(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from dl_techniques import FastVLMCausalLM

    out, err = fastvlm(capsys, "describe", picture, "--preset", tiny_preset, *SHORT)
    model = FastVLMCausalLM.from_preset(tiny_preset)
    inputs = {"prompts": "describe the picture.", "images": [picture]}
    assert out == model.generate(inputs, max_new_tokens=6) + "\n"
    (line,) = err.splitlines()
    assert line.startswith(f"{keras.backend.backend()}: ")
    assert "first token" in line and "tokens/s" in line and "after the start" in line
    assert fastvlm(capsys, "describe", picture, "--preset", tiny_preset, *SHORT, "--quiet")[1] == ""


def test_describe_names_each_of_several_pictures(
    tiny_preset: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tmp_path / "other.png")
    Image.new("RGB", (9, 50), (250, 20, 20)).save(other)
    arguments = ("--preset", tiny_preset, *SHORT, "--json")
    out, err = fastvlm(capsys, "describe", picture, other, *arguments)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["image"] for record in records] == [picture, other]
    assert err == ""
    for record in records:
        assert record["backend"] == keras.backend.backend()
        assert 1 <= record["tokens"] <= 6
        assert record["first_token_seconds"] > 0
    assert records[0]["first_token_since_start_seconds"] > records[0]["first_token_seconds"]
    assert records[1]["first_token_since_start_seconds"] is None
    out, err = fastvlm(capsys, "describe", picture, other, "--preset", tiny_preset, *SHORT)
    (line,) = err.splitlines()  # one for all pictures
    assert ": 2 pictures, first token " in line and "a later question" in line
    assert f"{picture}: " in out and f"{other}: {records[1]['text']}" in out


def ask(capsys: pytest.CaptureFixture[str], preset: str, picture: str, *options: str) -> str:
    arguments = ("--preset", preset, "--json", *SHORT, *options)
    out, _ = fastvlm(capsys, "ask", picture, "What is in the picture?", *arguments)
    text: str = json.loads(out)["text"]
    return text


def test_seeded_sampling_repeats_itself(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = [
        ask(capsys, tiny_preset, picture, "--temperature", "3", "--seed", seed)
        for seed in ("1", "1", "2")
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


@pytest.mark.parametrize("options", [("--top-k", "1"), ("--top-p", "1e-6"), ("--temperature", "0")])
def test_a_draw_of_one_token_is_greedy(
    options: tuple[str, str], tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(capsys, tiny_preset, picture, *options) == ask(capsys, tiny_preset, picture)


@pytest.mark.once
def test_stop_texts_and_penalties(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    free = ask(capsys, tiny_preset, picture)
    stop = free[2:4]
    cut = free[: free.index(stop)]
    assert ask(capsys, tiny_preset, picture, "--stop", "never", "--stop", stop) == cut
    out, _ = fastvlm(
        capsys, "ask", picture, "What?", "--preset", tiny_preset, *SHORT, "--stop", stop
    )
    assert stop not in out
    penalized = ("--repetition-penalty", "9", "--no-repeat-ngram-size", "1")
    assert ask(capsys, tiny_preset, picture, *penalized) != free
    # Whatever the random model repeats by itself, more of it or less of it is another answer.
    both = {ask(capsys, tiny_preset, picture, f"--presence-penalty={p}") for p in (99, -99)}
    assert both != {free}


def test_log_probabilities_come_with_json(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("ask", picture, "What?", "--preset", tiny_preset, *SHORT, "--logprobs", "2")
    record = json.loads(fastvlm(capsys, *arguments, "--json")[0])
    assert len(record["logprobs"]) == record["tokens"]
    for token in record["logprobs"]:
        best, second = token["top"]
        assert token["logprob"] == best["logprob"] >= second["logprob"]
        assert token["token"] == best["token"]
    product = math.exp(sum(token["logprob"] for token in record["logprobs"]))
    assert record["certainty"] == pytest.approx(product)
    assert main.main(list(arguments)) == 2
    assert "--json" in capsys.readouterr().err


def test_a_chat_obeys_them_too(
    tiny_preset: str,
    picture: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(*more: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("What is this?\n"))
        chat = ("chat", picture, "--preset", tiny_preset, "--json", *SHORT)
        text: str = json.loads(fastvlm(capsys, *chat, *more)[0])["text"]
        return text

    free = answer()
    assert answer("--stop", free[2:4]) == free[: free.index(free[2:4])]
    assert answer("--repetition-penalty", "50") != free


@pytest.mark.once
def test_chat_keeps_its_turns(
    tiny_preset: str,
    picture: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = "What is this?\n\nWhat is this?\n/clear\n/image {0}\nWhat is this?\n/quit\nnever\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines.format(picture)))
    remembered: list[int] = []

    def ask(self: Chat, question: str, images: object = None) -> object:
        remembered.append(len(self.messages))
        return original(self, question, images)

    original = Chat.ask
    monkeypatch.setattr(Chat, "ask", ask)
    out, _ = fastvlm(capsys, "chat", picture, "--preset", tiny_preset, "--json", *SHORT)
    turns = [json.loads(line) for line in out.splitlines()]
    assert [turn["question"] for turn in turns] == ["What is this?"] * 3
    assert all(0 < turn["certainty"] <= 1 for turn in turns)
    assert turns[2]["text"] == turns[0]["text"]  # /clear forgot both turns
    assert remembered == [0, 2, 0]  # messages before each question


def test_a_chat_goes_on_after_a_mistake(
    tiny_preset: str,
    picture: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = b"/image missing.png\n/imagine\n/image -\ncaf\xe9?\n/help\nWhat is this?\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), "ascii"))
    assert main.main(["chat", picture, "--preset", tiny_preset, "--json", *SHORT]) == 2
    out, err = capfd.readouterr()
    (turn,) = out.splitlines()
    assert json.loads(turn)["question"] == "What is this?"
    said = err.splitlines()
    assert [line.startswith("error: ") for line in said] == [True] * 4 + [False]
    for words, line in zip(("missing.png", "/imagine", "/image FILE", "UTF-8"), said, strict=False):
        assert words in line
    assert said[4] == chat.HELP


def test_a_picture_on_stdin(
    tiny_preset: str,
    picture: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named, _ = fastvlm(capsys, "describe", picture, "--preset", tiny_preset, *SHORT)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(picture).read_bytes())))
    piped, _ = fastvlm(capsys, "describe", "-", "--preset", tiny_preset, *SHORT)
    assert piped == named
    assert main.main(["chat", "-", "--preset", tiny_preset]) == 2
    assert "questions from stdin" in capsys.readouterr().err


def test_broken_pictures_are_named_and_the_others_answered(
    tiny_preset: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    paths = [picture, str(broken), picture, "missing.png"]
    assert main.main(["describe", *paths, "--preset", tiny_preset, "--quiet", *SHORT]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert "broken.jpg" in first and "missing.png" in second
    lines = out.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"{picture}: ") for line in lines)


def test_a_top_k_above_the_vocabulary_is_all_of_it(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = ("--temperature", "3", "--seed", "1")
    everything = ask(capsys, tiny_preset, picture, *draw)
    assert ask(capsys, tiny_preset, picture, *draw, "--top-k", "999999") == everything
    below_one = ask(capsys, tiny_preset, picture, *draw, "--top-p", "0.9")
    assert ask(capsys, tiny_preset, picture, *draw, "--top-p", "0.9", "--top-k", "999999") == (
        below_one
    )


def test_only_the_shipped_models_are_asked_in_one_form() -> None:
    asked = ("What is this?", "A cat?", "I see", "TV or radio?", "what now?")
    told = [session.as_taught(question, "demo") for question in asked]
    assert told == ["what is this?", "a cat?", "I see", "TV or radio?", "what now?"]
    assert [session.as_taught(question, "folder") for question in asked] == list(asked)


@pytest.fixture
def question_set(tmp_path: Path) -> Path:
    """Three questions on two pictures."""
    folder = tmp_path / "set"
    folder.mkdir()
    lines = []
    for i, name in enumerate(("a.png", "b.png", "a.png")):
        Image.new("RGB", (20, 20), (90 * i, 40, 200)).save(folder / name)
        record = {"image": name, "question": "How many cats are there?", "answer": "two"}
        lines.append(json.dumps({**record, "baseline_question_only": "two" if i else "one"}))
    (folder / "records.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.once
def test_evaluate_prints_and_writes(
    tiny_preset: str, question_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.json"
    arguments = ["--preset", tiny_preset, "--data", str(question_set), "--max-new-tokens", "3"]
    out, _ = fastvlm(capsys, "evaluate", *arguments, "--output", str(output), "--batch-size", "2")
    report = json.loads(output.read_text())
    (figures,) = report["sets"]
    assert figures["n"] == 3
    assert figures["majority"] == 1.0
    assert figures["question_only"] == pytest.approx(2 / 3)
    assert 0.0 <= figures["exact_match"] <= 1.0
    assert "| set |" in out
    out, _ = fastvlm(capsys, "evaluate", *arguments, "--json", "--limit", "2")
    assert json.loads(out)["sets"][0]["n"] == 2


def test_evaluate_refuses_before_it_works(
    question_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "no" / "report.json")
    data = ["evaluate", "--preset", "none", "--data"]
    assert main.main([*data, str(question_set), "--output", nowhere]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main.main([*data, str(tmp_path / "empty")]) == 2
    assert "records.jsonl" in capsys.readouterr().err


@pytest.mark.once
def test_a_process_that_has_built_nothing(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the preset names must be found by a process that never imported it."""
    arguments = ["describe", picture, "--preset", tiny_preset, *SHORT]
    command = [sys.executable, "-m", "dl_techniques", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == fastvlm(capsys, *arguments)[0]
    assert "first token" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["describe", "ask"])
def test_an_unknown_preset_is_one_line(
    command: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["What?"] if command == "ask" else []
    assert main.main([command, picture, *question, "--preset", "demoo"]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert "demoo" in line and out == ""


def test_a_question_longer_than_the_context(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["ask", picture, "why " * 500, "--preset", tiny_preset]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and out == ""


def test_a_damaged_preset(
    tiny_preset: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_preset, broken)
    weights = broken / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert main.main(["describe", picture, "--preset", str(broken)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.weights.h5" in line


def test_extreme_pictures_are_answered(
    tiny_preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in ((1, 1), (20000, 10)):
        path = str(tmp_path / "extreme.png")
        Image.new("RGB", size, (10, 200, 30)).save(path)
        out, _ = fastvlm(capsys, "describe", path, "--preset", tiny_preset, "--json", *SHORT)
        assert json.loads(out)["tokens"] >= 1


@pytest.mark.once
def test_benchmark_measures_this_process(
    tiny_preset: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "benchmark",
        picture,
        "--preset",
        tiny_preset,
        "--no-cold",
        "--repeats",
        "1",
        *SHORT,
    )
    out, _ = fastvlm(capsys, *arguments, "--json")
    report = json.loads(out)
    times = report["warm"]["times"]
    assert all(times[name] > 0 for name in ("preprocess", "encode", "prefill", "first_decode"))
    assert report["warm"]["model"]["fused"] is True
    assert report["warm"]["peak_megabytes"] > 50
    assert report["machine"]["backend"] == keras.backend.backend()
    assert "cold" not in report


@pytest.mark.full
def test_benchmark_from_a_cold_start(tiny_preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = fastvlm(
        capsys, "benchmark", "--preset", tiny_preset, "--repeats", "1", "--no-fuse", *SHORT
    )
    for name in ("first run: Enter to the first text", "next run: peak memory", "warm: decoding"):
        assert name in out
    assert "fused False" in out


class FakeHost:
    """Says how large a picture is, in pieces."""

    def __init__(self, folder: str, threads: int | None = None) -> None:
        pass

    def stream(
        self, pictures: list[np.ndarray], question: str, max_new_tokens: int | None = None
    ) -> Iterator[str]:
        yield from [f"{max_new_tokens}: ", *map(str, pictures[0].shape[:2])]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the format "litert" writes, by its names alone."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    (folder / "vision.tflite").write_bytes(b"")
    monkeypatch.setattr(litert, "Host", FakeHost)
    return str(folder)


@pytest.mark.once
def test_an_exported_folder_is_asked_as_a_preset(
    exported: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(picture) as image:
        said = f"6: {image.height}{image.width}"
    out, err = fastvlm(capsys, "describe", picture, "--preset", exported, *SHORT)
    assert out == said + "\n" and err.startswith("litert: 1 picture, first token")
    out, _ = fastvlm(capsys, "ask", picture, "What?", "--preset", exported, "--json", *SHORT)
    record = json.loads(out)
    assert (record["text"], record["backend"], record["tokens"]) == (said, "litert", None)
    assert main.main(["ask", picture, "What?", "--preset", exported, "--temperature", "1"]) == 2
    assert "takes the likeliest token; leave out temperature" in capsys.readouterr().err
    for options in (("--stop", "."), ("--logprobs", "1", "--json")):
        assert main.main(["ask", picture, "What?", "--preset", exported, *options]) == 2
        assert "leave out stop texts, penalties" in capsys.readouterr().err


@pytest.mark.once
def test_an_exported_folder_is_evaluated(
    exported: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = tmp_path / "sets"
    sets.mkdir()
    with Image.open(picture) as image:
        answer = f"6: {image.height}{image.width}"
    record = {"image": picture, "question": "How large?", "answer": answer}
    (sets / "records.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    options = ("--preset", exported, "--data", str(sets), "--json", *SHORT)
    report = json.loads(fastvlm(capsys, "evaluate", *options)[0])
    assert report["sets"][0]["exact_match"] == 1.0 and report["machine"]["backend"] == "litert"


@pytest.mark.once
@pytest.mark.parametrize("command", [["chat"], ["benchmark", "--no-cold"]])
def test_what_needs_a_keras_model_says_so(
    command: list[str], exported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*command, "--preset", exported]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is for another runtime (litert)" in line and "use ask" in line
