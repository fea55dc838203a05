"""convert, end to end on small random checkpoints."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from dl_techniques.checkpoints import tensor_writer
from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.cli import main
from dl_techniques.cli.commands import convert
from dl_techniques.errors import PresetError
from dl_techniques.loading import find
from tests.checkpoints.fast_vlm.folders import PLAIN_TOWER, apple_folder, make_backbone, numbers
from tests.checkpoints.vision import small_variants

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def apple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apple_folder(
        tmp_path_factory.mktemp("apple") / "model", make_backbone(PLAIN_TOWER), 15_000
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: Any, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    got = main.main(["convert", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    assert got == status, err
    assert status == 0 or (err.startswith("error: ") and err.count("\n") == 1)
    return out, err


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with open_tensors(folder) as store:
        return {name: store.read(name) for name in store}


def same_bits(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        left[n].dtype == right[n].dtype and left[n].tobytes() == right[n].tobytes() for n in left
    )


def test_there_and_back_is_exact(
    apple: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, direct = (tmp_path / name for name in ("ours", "theirs", "direct"))
    out, _ = run(capsys, apple, ours)
    numbers_read = json.loads(run(capsys, ours, "--dry-run", "--json")[0])["parameters"]
    assert numbers_read == json.loads(run(capsys, apple, "--dry-run", "--json")[0])["parameters"]
    assert "apple" in out and "bfloat16 (stored: bfloat16)" in out and f"wrote {ours}" in out
    out, _ = run(capsys, ours, theirs, "--to", "transformers")
    assert "bfloat16 (stored: bfloat16)" in out
    run(capsys, apple, direct, "--to", "transformers")
    left, right = arrays(theirs), arrays(direct)
    assert left.keys() == right.keys() and len(left) > 40
    assert same_bits({n: a for n, a in left.items() if a.shape}, {
        n: a for n, a in right.items() if a.shape
    })  # fmt: skip
    loaded = FastVLMCausalLM.from_preset(theirs)
    expected = FastVLMCausalLM.from_preset(apple)
    for a, b in zip(loaded.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(numbers(a), numbers(b))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["direct", "ours", "theirs"]


def test_dry_run_says_what_it_is_and_writes_nothing(
    apple: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run(capsys, apple, "--dry-run", "--json")
    facts = json.loads(out)
    with open_tensors(apple) as store:
        assert facts["tensors"] == len(store) and facts["stored_bytes"] == store.nbytes
    assert facts["model"] == "FastVLMCausalLM" and facts["precision"] == "bfloat16"
    assert facts["peak_bytes"]["float32"] > facts["written_bytes"] > 0
    run(capsys, apple, tmp_path / "x", "--dry-run")
    assert list(tmp_path.iterdir()) == []


def test_the_precision_of_a_preset_is_kept_unless_another_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FastVLMCausalLM(make_backbone(PLAIN_TOWER, dtype="bfloat16"))
    model.save_to_preset(tmp_path / "brief")
    FastVLMCausalLM(make_backbone(PLAIN_TOWER)).save_to_preset(tmp_path / "long")
    for name, precision, wanted in (
        ("brief", (), "bfloat16"),
        ("brief", ("--precision", "float32"), "float32"),
        ("long", (), "float32"),
        ("long", ("--precision", "bfloat16"), "bfloat16"),
    ):
        dest = tmp_path / f"{name}-{wanted}"
        run(capsys, tmp_path / name, dest, "--to", "transformers", *precision)
        kinds = {array.dtype.name for array in arrays(dest).values() if array.shape}
        assert (
            kinds == {wanted} and json.loads((dest / "config.json").read_text())["dtype"] == wanted
        )
        facts = json.loads(run(capsys, tmp_path / name, "--dry-run", "--json", *precision)[0])
        written = sum(a.nbytes for a in arrays(dest).values() if a.shape)
        assert facts["written_precision"] == wanted and facts["written_bytes"] == written
    run(capsys, tmp_path / "brief", tmp_path / "ours")
    again = FastVLMCausalLM.from_preset(tmp_path / "ours", dtype="bfloat16")
    for a, b in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(numbers(a), numbers(b))
    stored = [
        json.loads(run(capsys, tmp_path / n, "--dry-run", "--json")[0]) for n in ("ours", "brief")
    ]
    assert stored[0]["precision"] == "bfloat16"
    assert stored[0]["stored_bytes"] == stored[1]["stored_bytes"] == 2 * stored[0]["parameters"]


def test_a_network_in_bfloat16_stays_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_variants.add_small_variants(monkeypatch)
    small_variants.small_network(dtype="bfloat16").save_to_preset(tmp_path / "ours")
    run(capsys, tmp_path / "ours", tmp_path / "theirs", "--to", "transformers")
    kinds = {array.dtype.name for array in arrays(tmp_path / "theirs").values() if array.shape}
    assert kinds == {"bfloat16"}


def test_dry_run_looks_for_the_tokenizer(
    apple: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(apple, tmp_path / "theirs"))
    (copy / "vocab.json").unlink()
    said = run(capsys, copy, "--dry-run", status=2)[1]
    assert "no tokenizer" in said and str(copy) in said
    assert run(capsys, copy, tmp_path / "x", status=2)[1] == said
    run(capsys, apple, tmp_path / "ours")
    (tmp_path / "ours" / "assets" / "tokenizer" / "tokenizer.json").unlink()
    assert "tokenizer.json" in run(capsys, tmp_path / "ours", "--dry-run", status=2)[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours", "theirs"]


def test_vision_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_variants.add_small_variants(monkeypatch)
    network = small_variants.small_network()
    source = small_variants.write(small_variants.arrays_of(network, "apple"), tmp_path)
    out, _ = run(capsys, source, tmp_path / "ours")
    assert "Apple FastViT, training form" in out and small_variants.SMALL in out
    again = FastVLM.from_preset(tmp_path / "ours")
    for a, b in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    _, err = run(capsys, source, tmp_path / "y", "--variant", "mci0", status=2)
    assert "mci0" in err and not (tmp_path / "y").exists()


def test_interrupted_conversion_goes_on(
    apple: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dest, written = tmp_path / "out", []
    plain = tensor_writer.write_safetensors

    def interrupted(path: Path, *rest: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        plain(path, *rest)

    load = convert.load

    def load_and_shard(*given: Any) -> Any:
        model = load(*given)
        export: Callable[..., None] = model.export_to_transformers
        object.__setattr__(
            model,
            "export_to_transformers",
            lambda folder, **options: export(folder, max_shard_bytes=10_000, **options),
        )
        return model

    monkeypatch.setattr(convert, "load", load_and_shard)
    monkeypatch.setattr(tensor_writer, "write_safetensors", interrupted)
    arguments = ["convert", str(apple), str(dest), "--to", "transformers"]
    assert main.main(arguments) == main.INTERRUPTED
    assert not dest.exists() and len(written) == 2
    first = list(written)
    again: list[str] = []
    monkeypatch.setattr(
        tensor_writer,
        "write_safetensors",
        lambda path, *rest: (again.append(path.name), plain(path, *rest)),
    )
    run(capsys, *arguments[1:])
    assert again and not set(again) & set(first)
    run(capsys, apple, tmp_path / "whole", "--to", "transformers")
    left, right = arrays(dest), arrays(tmp_path / "whole")
    assert all(
        np.array_equal(left[n].view("u1"), right[n].view("u1")) for n in left if left[n].shape
    )


Usage = namedtuple("Usage", "total used free")


def test_bad_input(
    apple: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "DEST is missing" in run(capsys, apple, status=2)[1]
    (tmp_path / "there").mkdir()
    assert "--force" in run(capsys, apple, tmp_path / "there", status=2)[1]
    assert "make it first" in run(capsys, apple, tmp_path / "no" / "x", status=2)[1]
    assert "no preset" in run(capsys, tmp_path / "nothing", tmp_path / "x", status=2)[1]
    cut = tmp_path / "cut"
    shutil.copytree(apple, cut)
    shard = sorted(cut.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-8])
    assert "cut short" in run(capsys, cut, tmp_path / "x", status=2)[1]
    shard.unlink()
    assert "missing shards" in run(capsys, cut, tmp_path / "x", status=2)[1]
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: Usage(10, 10, 0))
    assert "make room" in run(capsys, apple, tmp_path / "x", status=2)[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "there"]


def test_full_disk_while_writing(
    apple: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*given: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FastVLMCausalLM, "save_to_preset", full)
    _, err = run(capsys, apple, tmp_path / "x", status=2)
    assert "No space left on device" in err and list(tmp_path.iterdir()) == []


def test_other_presets_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(PresetError, match="'bert'"):
        find(tmp_path)


def test_what_is_no_preset_is_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle.litertlm").write_bytes(b"")
    FastVLM.from_variant("nano").save(tmp_path / "a.keras")
    for name, kind in (("bundle.litertlm", "litertlm"), ("a.keras", "archive")):
        _, err = run(capsys, tmp_path / name, tmp_path / "new", status=2)
        assert f"is of the kind {kind!r}, which cannot be converted; expected a preset" in err
