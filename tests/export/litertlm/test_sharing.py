"""The table of embeddings stands in a bundle once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.export.litertlm.assembling import build_bundle
from dl_techniques.export.litertlm.sharing import table_place, write_without_table
from dl_techniques.hosts.litertlm_apart import Turn, engine_answers
from dl_techniques.hosts.litertlm_bundle import MODEL_TYPES, read_bundle
from tests.export.litertlm.small_bundle import LIMIT, QUESTIONS, needs_tensorflow, small_bundle
from tests.models.vlm.fast_vlm.small_model import pictures

pytestmark = needs_tensorflow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the small model, each whole."""
    from dl_techniques.export.litert_vlm.conversion import write_signatures
    from dl_techniques.export.litert_vlm.language_model import embed_signature

    folder, made = tmp_path_factory.mktemp("parts"), small_bundle()
    content, sections = made.path.read_bytes(), read_bundle(made.path).sections
    paths = {name: folder / f"{name}.tflite" for name in MODEL_TYPES}
    for name in set(MODEL_TYPES) - {"embedder"}:
        begin, end = sections[MODEL_TYPES[name]]
        paths[name].write_bytes(content[begin:end])
    backbone = made.model.backbone
    signature = {"embed": embed_signature(backbone.decoder)}
    write_signatures(paths["embedder"], backbone.token_embedding, signature)
    return paths


def table() -> np.ndarray:
    return np.array(small_bundle().model.backbone.token_embedding.embeddings)


def test_the_place_is_that_of_the_table(parts: dict[str, Path]) -> None:
    place = table_place(parts["embedder"], parts["language_model"])
    assert place is not None
    found = np.frombuffer(
        parts["language_model"].read_bytes(), "float32", count=table().size, offset=place
    )
    np.testing.assert_array_equal(found.reshape(table().shape), table())


def test_a_table_that_is_not_there_is_not_shared(parts: dict[str, Path]) -> None:
    assert table_place(parts["embedder"], parts["vision_encoder"]) is None


def test_the_offset_counts_from_the_embedders_first_byte(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    block, place = 4096, 128
    write_without_table(parts["embedder"], tmp_path / "e.tflite", place, block)
    content = (tmp_path / "e.tflite").read_bytes()
    assert len(content) < block < table().nbytes
    whole = content + bytes(block + place - len(content)) + table().tobytes()
    embed = Interpreter(model_content=whole).get_signature_runner("embed")
    row = embed(token_ids=np.array([[7]], "int32"))["embeddings"]
    np.testing.assert_array_equal(row[0, 0], table()[7])


def test_both_forms_answer_the_same_and_one_is_smaller(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    made = small_bundle()
    header, tokenizer = read_bundle(made.path), tmp_path / "tokenizer.json"
    tokenizer.write_text(made.model.preprocessor.tokenizer.to_hugging_face(), encoding="utf-8")
    twice = tmp_path / "twice.litertlm"
    build_bundle(parts, tokenizer, header.metadata, header.host, twice, share_table=False)
    begin, end = read_bundle(twice).sections[MODEL_TYPES["embedder"]]
    assert end - begin == parts["embedder"].stat().st_size
    turns = [[Turn(QUESTIONS[0], (picture,))] for picture in pictures(2)]
    answers = [engine_answers(path, turns, LIMIT) for path in (twice, made.path)]
    assert answers[0] == answers[1]
    saved = twice.stat().st_size - made.path.stat().st_size
    assert abs(saved - table().nbytes) < 16384  # sections begin at multiples of this
