"""`export_vlm`: a whole vision-language model for LiteRT, compared with Keras before it is kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dl_techniques.errors import ExportError
from dl_techniques.export.formats import check_extra, format_of
from dl_techniques.export.gates import refuse_failed
from dl_techniques.export.litert.litert_operators import refuse_foreign_operators
from dl_techniques.export.litert_vlm.comparing import (
    COMPARED_TOKENS,
    Case,
    compare_readings,
    read_with_host,
    read_with_keras,
)
from dl_techniques.export.litert_vlm.language_model import is_tied
from dl_techniques.export.litert_vlm.manifest import make_manifest
from dl_techniques.export.litert_vlm.parts import (
    CACHE_LENGTH,
    PREFILL_LENGTHS,
    check_request,
    write_parts,
)
from dl_techniques.export.litert_vlm.resizing import at_size
from dl_techniques.export.litert_vlm.tokenizer_file import write_tokenizer_json
from dl_techniques.export.networks import size_of
from dl_techniques.export.pictures import drawn_pictures
from dl_techniques.export.report import Check, ExportReport
from dl_techniques.export.staging import staged
from dl_techniques.hosts import litert

if TYPE_CHECKING:
    import keras

QUESTION = "What is in this picture?"
DRAWN = "compared on four drawn pictures; give pictures of your own for figures that mean more"
HOST_FILE = Path(litert.__file__)
HOST = "host.py answers without Keras: python host.py FOLDER PICTURE QUESTION"
GREEDY = f"compared over {COMPARED_TOKENS} greedy tokens a prompt, stop tokens not minded"


def export_vlm(
    model: keras.Model,
    folder: str | Path,
    *,
    image_size: int | None = None,
    prefill_lengths: Sequence[int] = PREFILL_LENGTHS,
    cache_length: int = CACHE_LENGTH,
    precision: str = "float32",
    pictures: Sequence[str | Path] | None = None,
    question: str = QUESTION,
    block_size: int | None = None,
    skip: Sequence[str] = (),
) -> ExportReport:
    """Writes the LiteRT files of a model, its tokenizer, `manifest.json` and `host.py`.

    In float32 the embedder of a model whose logits are tied to it stands in the language model's
    file, where one table serves both.

    Args:
        model: `FastVLMCausalLM` with a preprocessor; it is not changed. Keras runs on TensorFlow.
        folder: takes this name when all comparisons passed; an older one stays until then.
        image_size: side of the pictures in pixels. Defaults to the model's own.
        prefill_lengths: rows that each prefill signature reads at once.
        cache_length: most rows of prompt and answer together.
        precision: one of `parts.PRECISIONS`.
        pictures: files to compare on. Defaults to four drawn ones.
        question: what is asked about each of them.
        block_size: int4 weights of the language model that share a scale, see `requantize`.
        skip: weights of the language model that stay as they are, see `requantize`.

    Returns:
        What was written, and how the host's numbers and tokens compare with Keras'.

    Raises:
        ExportError: something that cannot be exported, or files that compute something else.
        MissingExtraError: a package is missing.

    Example:
        >>> from dl_techniques import FastVLMCausalLM
        >>> model = FastVLMCausalLM.from_preset("demo")
        >>> report = export_vlm(model, "demo_litert")  # doctest: +SKIP
        >>> report.checks[-1].agreement  # doctest: +SKIP
        1.0
    """
    lengths = sorted({int(n) for n in prefill_lengths})
    check_extra(format_of("litert"))
    _check_model(model)
    check_request(model, lengths, cache_length, precision)
    reference = at_size(model, size_of(model, image_size)[0])
    with staged(Path(folder)) as partial, tempfile.TemporaryDirectory() as work:
        partial.mkdir()
        choice = {"block_size": block_size, "skip": tuple(skip)}
        _write(reference, partial, lengths, cache_length, precision, choice)
        cases = _cases(pictures, question, Path(work))
        checks = compare(reference, partial, cases, cache_length, precision, Path(work))
        refuse_failed(checks, Path(folder).name)
        files = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
    notes = (HOST, GREEDY, *_notes(reference, precision, pictures))
    runtime = f"ai-edge-litert {version('ai-edge-litert')}"
    return ExportReport("litert", "vlm", precision, str(folder), files, runtime, checks, notes)


def compare(
    model: keras.Model,
    folder: Path,
    cases: Sequence[Case],
    cache_length: int,
    precision: str,
    work: Path,
) -> tuple[Check, ...]:
    """Keras and the host of an exported folder on the same prompts.

    Args:
        model: the model that was exported.
        folder: the exported folder.
        cases: prompts.
        cache_length: of the export.
        precision: of the export; says what is allowed.
        work: an existing folder for what goes to and fro.
    """
    expected = [read_with_keras(model, case, cache_length) for case in cases]
    limits = [len(reading.tokens) for reading in expected]
    got = read_with_host(folder, cases, limits, work)
    return compare_readings(expected, got, precision, model.stop_ids())


def _check_model(model: keras.Model) -> None:
    if getattr(model, "preprocessor", None) is None:
        raise ExportError(
            "the model has no preprocessor, so its prompts are unknown; export its parts with "
            "write_parts, or give it one"
        )


def _write(
    model: keras.Model, folder: Path, lengths: Sequence[int], cache_length: int, precision: str,
    choice: dict[str, Any],
) -> None:  # fmt: skip
    """All files of the folder."""
    shared = precision == "float32" and is_tied(model.backbone.decoder)
    parts = write_parts(
        model,
        folder,
        prefill_lengths=lengths,
        cache_length=cache_length,
        precision=precision,
        share_embedder=shared,
        **choice,
    )
    for path in parts.values():
        refuse_foreign_operators(path)
    write_tokenizer_json(model.preprocessor.tokenizer, folder / "tokenizer.json")
    manifest = make_manifest(
        model,
        size=size_of(model, None)[0],
        picture_rows=model.preprocessor.num_image_tokens,
        prefill_lengths=lengths,
        cache_length=cache_length,
        shared_embedder=shared,
    )
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(HOST_FILE, folder / "host.py")


def _cases(pictures: Sequence[str | Path] | None, question: str, work: Path) -> list[Case]:
    """One prompt for each picture, and one without."""
    if pictures is None:
        pictures = []
        for i, drawn in enumerate(drawn_pictures()):
            pictures.append(work / f"drawn_{i}.png")
            Image.fromarray(drawn).save(pictures[-1])
    return [*(Case((Path(path),), question) for path in pictures), Case((), question)]


def _notes(model: keras.Model, precision: str, pictures: Sequence[str | Path] | None) -> list[str]:
    notes = [] if pictures else [DRAWN]
    decoder = model.backbone.decoder
    if not is_tied(decoder):
        return notes
    numbers = int(np.prod(decoder.backbone.token_embedding.embeddings.shape))
    if precision == "float32":
        return [*notes, f"embedder and logits share one table of {4 * numbers} bytes"]
    return [*notes, f"the table of embeddings ({numbers} numbers) is stored twice"]
