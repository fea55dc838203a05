"""Every mistake that the engine would pass over is an error of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.assembling import llm_metadata
from dl_techniques.export.litertlm.contract import Facts, check_bundle, check_chunks, check_parts
from dl_techniques.export.litertlm.signatures import SignatureSpec, TensorSpec
from dl_techniques.hosts.litertlm_bundle import METADATA, MODEL_TYPES, TOKENIZER, Bundle

FACTS = Facts(
    height=32, width=32, image_tokens=4, tokens=300, cache_length=192, stop_ids=(298, 296)
)
Parts = dict[str, dict[str, SignatureSpec]]


def floats(*shape: int) -> TensorSpec:
    return TensorSpec("float32", shape)


def one(inputs: TensorSpec, outputs: TensorSpec) -> dict[str, SignatureSpec]:
    return {"run": SignatureSpec({"x": inputs}, {"y": outputs})}


def step(rows: int, **outputs: TensorSpec) -> SignatureSpec:
    caches = {f"kv_cache_{part}_{i}": floats(1, 2, 192, 8) for i in range(2) for part in "kv"}
    given = {"embeddings": floats(1, rows, 16), "input_pos": TensorSpec("int32", (rows,)), **caches}
    return SignatureSpec(given, {**caches, **outputs})


def good_parts() -> Parts:
    return {
        "vision_encoder": one(floats(1, 32, 32, 3), floats(1, 4, 6)),
        "vision_adapter": one(floats(1, 4, 6), floats(1, 4, 16)),
        "embedder": one(TensorSpec("int32", (1, 1)), floats(1, 1, 16)),
        "language_model": {
            "prefill_32": step(32),
            "prefill_96": step(96),
            "decode": step(1, logits=floats(1, 1, 300)),
        },
    }


def test_sound_parts_pass() -> None:
    check_parts(good_parts(), FACTS)
    parts = good_parts()
    parts["vision_adapter"] = one(floats(1, 4, 6), floats(1, 1, 4, 16))
    check_parts(parts, FACTS)


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_every_part_is_needed(name: str) -> None:
    parts = good_parts()
    del parts[name]
    with pytest.raises(ExportError, match=f"lacks {name}.tflite"):
        check_parts(parts, FACTS)


def set_input(parts: Parts, signature: str, name: str, spec: TensorSpec) -> None:
    old = parts["language_model"][signature]
    parts["language_model"][signature] = replace(old, inputs={**old.inputs, name: spec})


def tokens_instead(parts: Parts) -> None:
    for signature, old in parts["language_model"].items():
        inputs = {k.replace("embeddings", "tokens"): v for k, v in old.inputs.items()}
        parts["language_model"][signature] = replace(old, inputs=inputs)


def no_decode(parts: Parts) -> None:
    del parts["language_model"]["decode"]


def no_prefill(parts: Parts) -> None:
    parts["language_model"] = {"decode": parts["language_model"]["decode"]}


def other_chunk(parts: Parts) -> None:
    parts["language_model"]["prefill_50"] = step(50)


def caches_in_keras_layout(parts: Parts) -> None:
    for signature, old in parts["language_model"].items():
        turned = {k: floats(1, 192, 2, 8) for k in old.inputs if k.startswith("kv_")}
        parts["language_model"][signature] = SignatureSpec(
            {**old.inputs, **turned}, {**old.outputs, **turned}
        )


def caches_renamed(parts: Parts) -> None:
    for signature, old in parts["language_model"].items():
        parts["language_model"][signature] = SignatureSpec(
            {k.replace("_v_1", "_v_2"): v for k, v in old.inputs.items()},
            {k.replace("_v_1", "_v_2"): v for k, v in old.outputs.items()},
        )


def caches_lost(parts: Parts) -> None:
    old = parts["language_model"]["prefill_32"]
    parts["language_model"]["prefill_32"] = replace(old, outputs={})


def logits(*shape: int) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts["language_model"]["decode"] = step(1, logits=floats(*shape))

    return change


def part(name: str, inputs: TensorSpec, outputs: TensorSpec) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts[name] = one(inputs, outputs)

    return change


def two_outputs(parts: Parts) -> None:
    old = parts["vision_encoder"]["run"]
    parts["vision_encoder"]["run"] = replace(old, outputs={**old.outputs, "z": floats(1)})


def two_inputs(parts: Parts) -> None:
    old = parts["vision_encoder"]["run"]
    parts["vision_encoder"]["run"] = replace(old, inputs={**old.inputs, "positions": floats(1)})


def two_signatures(parts: Parts) -> None:
    parts["embedder"] = {**parts["embedder"], "again": parts["embedder"]["run"]}


MISTAKES: dict[str, Callable[[Parts], None]] = {
    r"no embeddings; the engine would ignore every picture": tokens_instead,
    r"needs decode and at least one prefill_N": no_decode,
    r"has the signatures \['decode'\]": no_prefill,
    r"no multiple of the prefill length 50": other_chunk,
    r"must be float32\[1, heads, 192, head size\]": caches_in_keras_layout,
    r"caches must be kv_cache_k_i and kv_cache_v_i": caches_renamed,
    r"prefill_32 must give the caches back": caches_lost,
    r"prefill_96 must take embeddings as": lambda p: set_input(
        p, "prefill_96", "embeddings", floats(1, 96, 20)
    ),
    r"prefill_32 must take input_pos as": lambda p: set_input(
        p, "prefill_32", "input_pos", TensorSpec("int64", (32,))
    ),
    r"prefill_32 must take kv_cache_k_0 as": lambda p: set_input(
        p, "prefill_32", "kv_cache_k_0", floats(1, 2, 64, 8)
    ),
    r"decode must give logits float32\[1, 1, V\]": logits(1, 300),
    r"chooses among 340 ids and the tokenizer knows 300": logits(1, 1, 340),
    r"embedder.tflite must turn int32\[1, 1\] into float32\[1, 1, 16\]": part(
        "embedder", TensorSpec("int32", (1, 8)), floats(1, 8, 16)
    ),
    r"embedder.tflite must have one signature": two_signatures,
    r"takes 64x64 pixels, and the metadata say 32x32": part(
        "vision_encoder", floats(1, 64, 64, 3), floats(1, 4, 6)
    ),
    r"channels last; it takes .*\(1, 3, 32, 32\)": part(
        "vision_encoder", floats(1, 3, 32, 32), floats(1, 4, 6)
    ),
    r"channels last; it takes .*uint8": part(
        "vision_encoder", TensorSpec("uint8", (1, 32, 32, 3)), floats(1, 4, 6)
    ),
    r"vision_encoder.tflite must have one input and one output.*'z'": two_outputs,
    r"vision_encoder.tflite must have one input and one output.*'positions'": two_inputs,
    r"vision_adapter.tflite takes .*\(1, 4, 7\).*the encoder gives": part(
        "vision_adapter", floats(1, 4, 7), floats(1, 4, 16)
    ),
    r"vision_adapter.tflite must give float32\[1, 4, 16\].*\(1, 5, 16\)": part(
        "vision_adapter", floats(1, 4, 6), floats(1, 5, 16)
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_a_part_is_found(message: str) -> None:
    parts = good_parts()
    MISTAKES[message](parts)
    with pytest.raises(ExportError, match=message) as caught:
        check_parts(parts, FACTS)
    assert "\n" not in str(caught.value)


def test_a_cache_without_room_is_refused() -> None:
    check_chunks([16, 32], 64, 4)
    with pytest.raises(ExportError, match="leaves no room .* give at least 288"):
        check_chunks([16, 32], 192, 256)


def good_bundle() -> Bundle:
    pytest.importorskip("litert_lm_builder")
    names = (METADATA, TOKENIZER, *MODEL_TYPES.values())
    return Bundle(llm_metadata(FACTS, ""), {}, dict.fromkeys(names, (0, 1)))


def test_a_sound_bundle_passes() -> None:
    check_bundle(good_bundle(), FACTS)


@pytest.mark.parametrize("name", [METADATA, TOKENIZER, *MODEL_TYPES.values()])
def test_every_section_is_needed(name: str) -> None:
    bundle = good_bundle()
    rest = {key: place for key, place in bundle.sections.items() if key != name}
    with pytest.raises(ExportError, match=f"lacks the sections .*{name}"):
        check_bundle(replace(bundle, sections=rest), FACTS)


def test_another_type_would_ignore_pictures() -> None:
    bundle = good_bundle()
    bundle.metadata.llm_model_type.qwen2p5.SetInParent()
    with pytest.raises(ExportError, match="of the type qwen2p5, not fast_vlm"):
        check_bundle(bundle, FACTS)


@pytest.mark.parametrize("height", [0, 16, 1024])
def test_another_size_in_the_metadata(height: int) -> None:
    bundle = good_bundle()
    bundle.metadata.llm_model_type.fast_vlm.image_tensor_height = height
    with pytest.raises(ExportError, match=f"a picture of {height}x32 pixels"):
        check_bundle(bundle, FACTS)


def test_another_context_in_the_metadata() -> None:
    bundle = good_bundle()
    bundle.metadata.max_num_tokens = 256
    with pytest.raises(ExportError, match="max_num_tokens=256, and the caches have 192"):
        check_bundle(bundle, FACTS)


def test_missing_and_foreign_stop_tokens() -> None:
    bundle = good_bundle()
    del bundle.metadata.stop_tokens[0]
    with pytest.raises(ExportError, match=r"stop at \[296\], and the model at \[296, 298\]"):
        check_bundle(bundle, FACTS)
    del bundle.metadata.stop_tokens[:]
    with pytest.raises(ExportError, match="would not end"):
        check_bundle(bundle, replace(FACTS, stop_ids=()))
