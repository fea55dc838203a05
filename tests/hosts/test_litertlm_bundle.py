"""The header of a bundle, written by the engine's library and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.assembling import build_bundle, llm_metadata
from dl_techniques.export.litertlm.contract import Facts
from dl_techniques.hosts.litertlm_bundle import (
    HOST_KEY,
    METADATA,
    MODEL_TYPES,
    TOKENIZER,
    HostRule,
    read_bundle,
)

pytestmark = pytest.mark.once

pytest.importorskip("litert_lm_builder")
FACTS = Facts(32, 32, 4, 300, 192, (298, 296))
RULE = HostRule(32, 32, "pad", (12, 3, 4), "bicubic", 1000, 4, "apple", ("<|im_end|>", "<image>"))


def write(folder: Path) -> dict[str, Path]:
    """A bundle of parts that are no models; the header does not mind."""
    parts = {name: folder / f"{name}.tflite" for name in MODEL_TYPES}
    for name, path in parts.items():
        path.write_bytes(name.encode() * 1000)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text("{}")
    build_bundle(
        parts,
        tokenizer,
        llm_metadata(FACTS, "{{ x }}"),
        RULE,
        folder / "m.litertlm",
        share_table=False,
    )
    return parts


def test_round_trip(tmp_path: Path) -> None:
    parts = write(tmp_path)
    bundle = read_bundle(tmp_path / "m.litertlm")
    assert set(bundle.sections) == {METADATA, TOKENIZER, *MODEL_TYPES.values()}
    content = (tmp_path / "m.litertlm").read_bytes()
    for name, kind in MODEL_TYPES.items():
        begin, end = bundle.sections[kind]
        assert content[begin:end] == parts[name].read_bytes()
    assert bundle.host == RULE
    assert bundle.metadata.jinja_prompt_template == "{{ x }}"
    assert bundle.metadata.llm_model_type.fast_vlm.image_tensor_width == 32
    assert not list(tmp_path.glob("*.pb"))


def test_a_bundle_of_another_maker_has_no_host_rule(tmp_path: Path) -> None:
    write(tmp_path)
    bundle = replace(read_bundle(tmp_path / "m.litertlm"), system={})
    with pytest.raises(ExportError, match=f"no '{HOST_KEY}'"):
        _ = bundle.host


@pytest.mark.parametrize("content", [b"", b"no bundle at all", b"LITERTLM" + bytes(200)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.litertlm"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="is no LiteRT-LM bundle") as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


def test_a_cut_bundle_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "m.litertlm"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ExportError, match="is no LiteRT-LM bundle"):
        read_bundle(path)
