"""LoRA in PEFT's layout: ours comes back, PEFT's is read, and PEFT reads ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques.checkpoints.tensor_files import TensorInfo, open_tensors
from dl_techniques.checkpoints.tensor_writer import write_safetensors
from dl_techniques.errors import CheckpointError, TrainingError
from dl_techniques.training.fine_tune.peft_files import (
    CONFIG,
    TENSORS,
    dense_modules,
    merge_adapter,
    save_adapter,
)
from dl_techniques.training.fine_tune.trained_parts import choose_parts, finished_model
from tests.helpers import numbers, relative_difference
from tests.models.vlm.fast_vlm.small_model import LAYERS, make_model


def logits(model: Any) -> np.ndarray:
    ids = np.arange(5, 25)[None]
    inputs = {
        "token_ids": ids,
        "padding_mask": np.ones((1, 20), "int32"),
        "images": np.zeros((1, 0, 32, 32, 3), "float32"),
        "vision_indices": np.zeros((1, 0), "int32"),
    }
    return numbers(model(inputs))


@pytest.fixture(scope="module")
def tuned() -> Any:
    """A model with LoRA of rank 2, nothing in it at zero."""
    model = make_model()
    choose_parts(model, ("decoder",), 2, 6.0)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def adapter(tuned: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    save_adapter(tuned.backbone.text_backbone, folder, "Qwen/Qwen2-0.5B")
    return folder


def test_what_was_written_comes_back(tuned: Any, adapter: Path) -> None:
    plain = make_model()
    assert relative_difference(logits(plain), logits(tuned)) > 0.05
    assert merge_adapter(plain.backbone.text_backbone, adapter) == 7 * LAYERS
    assert relative_difference(logits(plain), logits(tuned)) < 1e-5


def test_merging_changes_nothing(tuned: Any) -> None:
    merged = finished_model(tuned, make_model())
    assert relative_difference(logits(merged), logits(tuned)) < 1e-5
    assert len(merged.weights) < len(tuned.weights)


def test_ranks_are_those_of_flat_matrices(adapter: Path) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    assert config["rank_pattern"] == {
        r".*\.q_proj": 8, r".*\.k_proj": 4, r".*\.v_proj": 4, r".*\.o_proj": 2,
        r".*\.gate_proj": 2, r".*\.up_proj": 2, r".*\.down_proj": 2,
    }  # fmt: skip
    assert config["alpha_pattern"][r".*\.q_proj"] == 24.0


def written(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config))
    infos = {name: TensorInfo(t.shape, t.dtype) for name, t in tensors.items()}
    write_safetensors(folder / TENSORS, infos, lambda name: tensors[name])
    return folder


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}])
def test_adapters_without_blocks_are_merged(tmp_path: Path, more: dict[str, Any]) -> None:
    model, rng = make_model(), np.random.default_rng(2)
    layers = dict(dense_modules(model.backbone.text_backbone))
    kernel = layers["model.layers.1.self_attn.q_proj"].kernel
    inputs, outputs = kernel.shape[0], int(np.prod(kernel.shape[1:]))
    a, b = rng.normal(size=(4, inputs)), rng.normal(size=(outputs, 4))
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    before = numbers(kernel)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **more}
    folder = written(tmp_path / "a", config, {k: v.astype("float32") for k, v in tensors.items()})
    assert merge_adapter(model.backbone.text_backbone, folder) == 1
    scale = 8 / (2.0 if more else 4.0)
    moved = numbers(kernel) - before
    np.testing.assert_allclose(moved, scale * (b @ a).T.reshape(kernel.shape), atol=1e-4)


def test_other_adapters_are_refused(adapter: Path, tmp_path: Path) -> None:
    decoder = make_model().backbone.text_backbone
    before = decoder.get_weights()
    with pytest.raises(CheckpointError, match="holds no adapter_config"):
        merge_adapter(decoder, tmp_path)
    config = json.loads((adapter / CONFIG).read_text())
    with open_tensors(adapter / TENSORS) as store:
        tensors = {name: store.read(name) for name in store}
    for number, (more, message) in enumerate((
        ({"peft_type": "IA3"}, "peft_type LORA"),
        ({"use_dora": True}, "use_dora cannot be read"),
        ({"bias": "all"}, "bias cannot be read"),
    )):  # fmt: skip
        folder = written(tmp_path / str(number), {**config, **more}, {})
        with pytest.raises(CheckpointError, match=message):
            merge_adapter(decoder, folder)
    name = next(iter(tensors))
    halved = written(tmp_path / "b", config, {**tensors, name: tensors[name][:, :3].copy()})
    with pytest.raises(CheckpointError, match="another network"):
        merge_adapter(decoder, halved)
    del tensors[name]
    with pytest.raises(CheckpointError, match="A or B is missing"):
        merge_adapter(decoder, written(tmp_path / "c", config, tensors))
    for left, right in zip(before, decoder.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(TrainingError, match="0 layers with LoRA"):
        save_adapter(decoder, tmp_path / "none")


@pytest.mark.full
@pytest.mark.once
def test_peft_reads_ours_and_we_read_what_it_writes(adapter: Path, tmp_path: Path) -> None:
    """Run with PEFT on the path: it is no dependency."""
    peft = pytest.importorskip("peft")
    import torch
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}  # fmt: skip
    base = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
    before = {n: t.clone() for n, t in base.state_dict().items()}
    read = peft.PeftModel.from_pretrained(base, str(adapter))
    merged = read.merge_and_unload().state_dict()
    plain = make_model().backbone.text_backbone
    start = {module: numbers(layer.kernel) for module, layer in dense_modules(plain)}
    assert merge_adapter(plain, adapter) == len(start) == 7 * LAYERS
    for module, layer in dense_modules(plain):
        name = f"{module}.weight"
        theirs = (merged[name] - before[name]).numpy()
        moved = (numbers(layer.kernel) - start[module]).reshape(theirs.shape[::-1]).T
        np.testing.assert_allclose(moved, theirs, atol=1e-5)
    # and the other way, with a rank of all heads
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"])
    other = peft.get_peft_model(transformers.Qwen2ForCausalLM(base.config), config)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    other.save_pretrained(str(tmp_path / "theirs"))
    plain = make_model().backbone.text_backbone
    assert merge_adapter(plain, tmp_path / "theirs") == 2 * LAYERS
    before = {n.replace(".base_layer", ""): t.clone() for n, t in other.state_dict().items()}
    merged = other.merge_and_unload().state_dict()
    for module, layer in dense_modules(plain):
        theirs = (merged[f"{module}.weight"] - before[f"base_model.model.{module}.weight"]).numpy()
        moved = (numbers(layer.kernel) - start[module]).reshape(theirs.shape[::-1]).T
        np.testing.assert_allclose(moved, theirs, atol=1e-5)
