"""Reading the inputs and outputs of LiteRT files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.signatures import (
    SignatureSpec,
    TensorSpec,
    caches_of,
    only,
    prefill_lengths,
    read_signatures,
)
from dl_techniques.hosts.litertlm_bundle import read_bundle
from tests.export.litertlm.small_bundle import CACHE, LENGTHS, needs_tensorflow, small_bundle
from tests.models.vlm.fast_vlm.small_model import LAYERS, SIZE, WIDTH

FLOAT = TensorSpec("float32", (1,))


@needs_tensorflow
def test_signatures_of_real_parts(tmp_path: Path) -> None:
    made = small_bundle()
    content = made.path.read_bytes()
    found = {}
    for name, (begin, end) in read_bundle(made.path).sections.items():
        if name.startswith("tf_lite_"):
            path = tmp_path / f"{name}.tflite"
            path.write_bytes(content[begin:end])
            found[name] = read_signatures(path)
    decoder = found["tf_lite_prefill_decode"]
    assert prefill_lengths(decoder) == list(LENGTHS)
    assert decoder["prefill_16"].inputs["embeddings"] == TensorSpec("float32", (1, 16, WIDTH))
    assert decoder["prefill_16"].inputs["input_pos"] == TensorSpec("int32", (16,))
    assert len(caches_of(decoder["decode"].outputs)) == 2 * LAYERS
    assert decoder["decode"].inputs["kv_cache_k_0"].shape[2] == CACHE
    picture, _ = only(found["tf_lite_vision_encoder"], "vision_encoder")
    assert picture == TensorSpec("float32", (1, SIZE, SIZE, 3))


def test_only_wants_one_of_each() -> None:
    good = SignatureSpec({"x": FLOAT}, {"y": FLOAT})
    assert only({"run": good}, "part") == (FLOAT, FLOAT)
    for bad in ({}, {"a": good, "b": good}, {"run": SignatureSpec({}, {"y": FLOAT})}):
        with pytest.raises(ExportError, match=r"part\.tflite must have one"):
            only(bad, "part")


def test_prefill_lengths_in_order() -> None:
    spec = SignatureSpec({}, {})
    names = dict.fromkeys(["prefill_128", "decode", "prefill_32", "my_prefill_3"], spec)
    assert prefill_lengths(names) == [32, 128]
