"""fastvlm train, end to end on a tiny model: from pictures and answers to a preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dl_techniques.cli import main
from dl_techniques.cli.commands import train
from dl_techniques.training import fine_tune as room
from dl_techniques.training.fine_tune import FineTune


def fastvlm(*arguments: Any) -> int:
    return main.main([str(a) for a in arguments])


@pytest.fixture
def data(picture: str, tmp_path: Path) -> Path:
    path = tmp_path / "my.jsonl"
    record = {"image": Path(picture).name, "question": "What is it?", "answer": "A cat."}
    path.write_text("\n".join([json.dumps(record)] * 3))
    return path


def settings(*arguments: Any) -> FineTune:
    return train.settings_of(main.build_parser().parse_args(["train", *map(str, arguments)]))


def test_a_model_is_taught_and_asked(
    tiny_preset: str, data: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = data.with_name("my_model")
    command = ["train", data, "--output", output, "--preset", tiny_preset, "--epochs", 1]
    command += ["--batch-size", 2, "--val-data", data, "--set", "max_new_tokens=4"]
    assert fastvlm(*command) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"wrote {output} after 2 steps; the weights of step 2, which answer ")
    assert "step 2/2, loss " in err and "decoder: " in err and "3 records" in err
    assert fastvlm("ask", "--preset", output, picture, "What is it?", "--max-new-tokens", 3) == 0
    # once more: nothing is trained twice, and another data set does not go on
    assert fastvlm(*command) == 0
    assert "step 2/2" not in capsys.readouterr().err
    data.write_text(data.read_text().replace("A cat", "A dog"))
    assert fastvlm(*command) == 2
    assert "with records=" in capsys.readouterr().err


@pytest.mark.once
def test_faults_end_it_before_a_model_is_loaded(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_text("no json\n[]\n" + data.read_text())
    assert fastvlm("train", data, "--output", data.with_name("m"), "--preset", "nowhere") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 2 bad record(s): ") and "line 1" in line and "line 2" in line
    assert fastvlm("train", data) == 2
    assert "no output" in capsys.readouterr().err
    assert fastvlm("train", data, "--output", "m", "--set", "epoch=2") == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err


@pytest.mark.once
def test_options_and_recipes_say_the_same(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("data: a.jsonl\noutput: m\nepochs: 3\nlora_rank: 8\nbatch_size: 4\n")
    told = settings(recipe, "--epochs", 2, "--set", "train=[decoder]", "optimization.lora_alpha=16")
    assert (told.epochs, told.lora_rank, told.lora_alpha, told.train) == (2, 8, 16, ("decoder",))
    same = settings("a.jsonl", "--output", "m", "--lora", 8, "--epochs", 2, "--batch-size", 4,
                    "--set", "train=decoder", "lora_alpha=16")  # fmt: skip
    assert same == told
    others = settings("--train_data", "a.jsonl", "--output_dir", "m", "--num_epochs", 2,
                      "--batch_size", 4, "--learning_rate", "1e-4", "--val_data", "v.jsonl",
                      "--gradient_accumulation_steps", 2)  # fmt: skip
    assert (others.output, others.epochs, others.batch_size) == ("m", 2, 4)
    assert (others.learning_rate, others.accumulate) == (1e-4, 2)
    assert others.val_data[0].path == "v.jsonl"
    assert settings("--config", recipe).epochs == 3
    assert settings("a.jsonl", "--output", "2024", "--minutes", 2).output == "2024"


def test_a_dry_run_prints_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "look_ahead", lambda settings, say: [settings.preset, "time: 1 s"])
    assert fastvlm("train", data, "--output", "m", "--dry-run") == 0
    assert capsys.readouterr().out == "demo\ntime: 1 s\n"


@pytest.mark.once
@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[3] / "recipes/finetune").glob("*.yaml")),
    ids=lambda path: path.name,
)
def test_recipes_of_the_repository_are_read(path: Path) -> None:
    told = settings(path, "my.jsonl", "--output", "m")
    assert told.rate > 0
