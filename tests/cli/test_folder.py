"""describe FOLDER: one line a picture, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dl_techniques.cli import folder, main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures, one of them in a subfolder, and a broken one."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.png", "c.png", "d.png", "more/a.png"):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), "uint8")).save(root / name)
    (root / "broken.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("no picture either")
    return root


def describe(photos: Path, output: Path, preset: str) -> int:
    arguments = ["--output", str(output), "--batch-size", "2", "--max-new-tokens", "4"]
    return main.main(["describe", str(photos), *arguments, "--preset", preset])


def test_each_picture_has_one_line_also_after_a_stop(
    photos: Path,
    tmp_path: Path,
    tiny_preset: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dl_techniques import FastVLMCausalLM

    output, answer, calls = tmp_path / "captions.jsonl", folder._answer, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_answer", stopped)
        assert describe(photos, output, tiny_preset) == 130
    early = output.read_bytes()
    assert len(early.splitlines()) == 2
    output.write_bytes(early + b'{"image": "bro')  # killed while it wrote
    capsys.readouterr()
    assert describe(photos, output, tiny_preset) == 2
    err = capsys.readouterr().err
    assert "broken.jpg" in err and "4 of 4 pictures" in err and "s left" in err
    assert output.read_bytes().startswith(early)
    records = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [record["image"] for record in records] == folder.picture_names(photos)
    assert ["error" in record for record in records] == [False, False, True, False, False, False]
    model = FastVLMCausalLM.from_preset(tiny_preset)
    for record in records:
        if "error" not in record:
            inputs = {"prompts": record["question"], "images": [str(photos / record["image"])]}
            assert record["text"] == model.generate(inputs, max_new_tokens=4)
    whole = output.read_bytes()
    assert describe(photos, output, tiny_preset) == 2
    assert output.read_bytes() == whole


@pytest.mark.parametrize("content", [b"my only copy", b"my notes\n", b'{"a": 1}\n', b"[]\n"])
def test_another_file_is_not_touched(
    photos: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "notes.txt"
    output.write_bytes(content)
    assert describe(photos, output, "demo") == 2
    assert "name another --output" in capsys.readouterr().err
    assert output.read_bytes() == content


def test_folders_and_output_go_together(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["describe", str(photos)]) == 2
    assert "add --output" in capsys.readouterr().err
    assert main.main(["describe", str(photos / "a.png"), "--output", str(tmp_path / "x")]) == 2
    assert "one folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert describe(tmp_path / "empty", tmp_path / "x", "demo") == 2
    assert "no pictures" in capsys.readouterr().err
