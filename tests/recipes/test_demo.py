"""The demo model's recipe: its stages on tiny settings, from nothing and on from a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from dl_techniques.errors import TrainingError
from dl_techniques.training import Recipe, is_finished
from recipes.demo import __main__ as command
from recipes.demo.makers import Demo, load_encoder
from recipes.demo.stages import finetune, reading
from recipes.demo.stages.finetune import EpochSlices

pytestmark = pytest.mark.once
FOLDER = Path(command.__file__).parent
MIX = {"scenes": 0.5, "words": 0.5}
NETWORK = {"embed_dims": [8, 8, 16], "depths": [1, 1, 1], "num_heads": [1, 1, 1]}
DECODER = {
    "num_layers": 1, "num_query_heads": 2, "num_key_value_heads": 1, "hidden_dim": 16,
    "intermediate_dim": 16,
}  # fmt: skip


def stage(**options: Any) -> dict[str, Any]:
    return {"steps": 2, "batch_size": 4, "optimizer": {"average": 0.9}, "options": options}


FROM_NOTHING = {
    "stages": {
        "encoder": stage(mix=MIX, pictures=8, network=NETWORK),
        "early": {"uses": "reading", **stage(encoder="encoder", mix=MIX, words=2, whole=False)},
        "language": stage(encoder="early", mix=MIX, records=8, decoder=DECODER),
        "together": {
            "uses": "language",
            **stage(start="language", train_encoder=True, mix=MIX, records=8, short=True),
        },
    }
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary that needs no download, and few steps for fresh heads."""

    def corpus(data: Any) -> Iterator[str]:
        yield from 40 * ["what is it? a red circle is on the left.", "which word is it? A B C"]

    monkeypatch.setattr(finetune, "tokenizer_corpus", corpus)
    monkeypatch.setattr(reading, "HEAD_STEPS", 2)
    monkeypatch.setattr(reading, "EPOCH_STEPS", 2)


def run(folder: Path, values: dict[str, Any] = FROM_NOTHING, start: Path | None = None) -> None:
    Recipe.from_dict(values).run(folder, Demo(start=start).makers(), lambda line: None)


@pytest.mark.slow_on_jax
def test_a_model_from_nothing_and_the_same_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole")
    batch = EpochSlices.batch

    def killed(self: EpochSlices, epoch: int, index: int) -> Any:
        if epoch or index or is_finished(tmp_path / "killed" / "language"):
            raise KeyboardInterrupt
        return batch(self, epoch, index)

    monkeypatch.setattr(EpochSlices, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    monkeypatch.setattr(EpochSlices, "batch", batch)
    run(tmp_path / "killed")
    models = [
        FastVLMCausalLM.from_preset(str(tmp_path / name / "together" / "preset"))
        for name in ("whole", "killed")
    ]
    for ours, theirs in zip(models[1].weights, models[0].weights, strict=True):
        assert np.array_equal(*(keras.ops.convert_to_numpy(v) for v in (ours, theirs))), ours.path
    encoders = [load_encoder(tmp_path / "whole" / n / "preset") for n in ("early", "together")]
    assert [encoder.reparameterized for encoder in encoders] == [False, True]
    assert models[0].backbone.text_backbone.num_layers == 1


@pytest.mark.slow_on_jax
def test_a_stage_goes_on_from_an_encoder(tmp_path: Path) -> None:
    encoder = FastVLM.from_variant("demo", include_top=False, input_shape=(64, 64, 3), **NETWORK)
    encoder.reparameterize(fold=True)
    encoder.save_to_preset(tmp_path / "start")
    values = {"stages": {"encoder": stage(mix=MIX, pictures=8, start="START", branch=True)}}
    run(tmp_path, values, tmp_path / "start")
    assert is_finished(tmp_path / "encoder" / "heads")
    assert not load_encoder(tmp_path / "encoder" / "preset").reparameterized


@pytest.mark.parametrize("name", ["recipe", "finer_print"])
def test_the_shipped_recipes_say_what_the_stages_know(name: str) -> None:
    from recipes.demo import makers

    kinds = {
        "encoder": makers.EncoderOptions,
        "reading": makers.ReadingOptions,
        "rows": makers.RowsOptions,
        "language": makers.LanguageOptions,
    }
    recipe = Recipe.from_file(FOLDER / f"{name}.yaml")
    assert kinds.keys() == Demo().makers().keys()
    for settings in recipe.stages.values():
        options = settings.read_options(kinds[settings.uses])
        assert sum(options.mix.values()) == pytest.approx(1)


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (
        ({"mix": MIX}, "give `start`, or the `encoder` of a model"),
        ({"mix": MIX, "start": "START"}, "name it with --start"),
        ({"mix": MIX, "start": "encodre"}, "'encodre' is neither START, nor an earlier stage"),
        ({"mixture": MIX}, "unknown key 'mixture'; did you mean 'mix'"),
    ):
        with pytest.raises(TrainingError, match=told):
            run(tmp_path, {"stages": {"language": stage(**options)}})
    with pytest.raises(SystemExit):
        command.main(["--work", str(tmp_path), "--out", str(tmp_path / "out"), "--mean", "0.5"])
    assert "--mean is taken with an earlier whole model" in capsys.readouterr().err
