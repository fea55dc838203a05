"""One `.litertlm` file of a whole vision-language model, run by the LiteRT-LM engine and checked.

| section | from |
|---|---|
| LlmMetadata | type `fast_vlm` with the picture's size, stop tokens, context, Jinja template |
| tokenizer | the model's own, as `tokenizer.json` |
| PREFILL_DECODE, EMBEDDER, VISION_ENCODER, VISION_ADAPTER | `litert_vlm.write_parts` |

What the engine does not check is checked here (`contract`), and the engine then answers questions
about pictures in the words of Keras, or no file is kept. Two things to know:

- A table of embeddings that also makes the logits is needed by EMBEDDER and PREFILL_DECODE. It is
  in the file once (`sharing`); `share_table=False` has it twice, and the report says the bytes.
- Several turns need `engine.EngineChat`, or a new conversation for every turn: see there.

Reference: LiteRT-LM, https://github.com/google-ai-edge/LiteRT-LM
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.data.images import load_image
from dl_techniques.errors import ExportError
from dl_techniques.export.gates import refuse_failed
from dl_techniques.export.litert_vlm.parts import CACHE_LENGTH, PREFILL_LENGTHS, write_parts
from dl_techniques.export.litert_vlm.resizing import at_size
from dl_techniques.export.litertlm.comparing import TEXT_GATES, compare_answers, keras_answers
from dl_techniques.export.litertlm.contents import assemble, rows_of
from dl_techniques.export.litertlm.contract import Facts, check_chunks
from dl_techniques.export.litertlm.row_embedder import write_row_embedder
from dl_techniques.export.networks import size_of
from dl_techniques.export.pictures import drawn_pictures
from dl_techniques.export.report import Check, ExportReport
from dl_techniques.export.staging import staged
from dl_techniques.hosts.litertlm import import_engine
from dl_techniques.hosts.litertlm_apart import Turn, engine_answers
from dl_techniques.hosts.litertlm_bundle import MODEL_TYPES, read_bundle

if TYPE_CHECKING:
    import keras

QUESTIONS = ("What is this?", "What color is it?")
MAX_NEW_TOKENS = 32


def export_bundle(
    model: keras.Model,
    path: str | Path,
    *,
    image_size: int | None = None,
    prefill_lengths: Sequence[int] = PREFILL_LENGTHS,
    cache_length: int = CACHE_LENGTH,
    precision: str = "float32",
    pictures: Sequence[Any] | None = None,
    question: str | Sequence[str] = QUESTIONS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    share_table: bool = True,
) -> ExportReport:
    """Writes a bundle and compares the engine's greedy answers with Keras'.

    Args:
        model: `FastVLMCausalLM` with a preprocessor; Keras must run on TensorFlow.
        path: the `.litertlm` file; an older one is replaced when the new one is right.
        image_size: side of the pictures in pixels. Defaults to the model's own.
        prefill_lengths: rows that each prefill signature reads at once.
        cache_length: tokens of prompt and answer together, a multiple of each prefill length.
        precision: "float32" or "int8" (int8 weights, float activations).
        pictures: what is compared on, of any kind `load_image` reads. Defaults to drawn ones.
        question: one or several; each is asked about each picture.
        max_new_tokens: longest answer that is compared.
        share_table: False writes a table that is needed twice twice, as other bundles have it.

    Returns:
        Files, checks, and what to know.

    Raises:
        ExportError: the model or a number cannot be exported, or the engine answers otherwise
            than Keras; no file is kept then.
        MissingExtraError: TensorFlow or LiteRT-LM is not installed.
    """
    import_engine()
    _check_request(model, precision)
    target = Path(path)
    turns = _turns(pictures, question)
    model = at_size(model, size_of(model, image_size)[0])
    check_chunks(prefill_lengths, cache_length, model.preprocessor.num_image_tokens)
    folder = target.absolute().parent
    with staged(target) as draft, tempfile.TemporaryDirectory(dir=folder, prefix=".parts.") as work:
        parts = write_parts(
            model,
            work,
            prefill_lengths=prefill_lengths,
            cache_length=cache_length,
            precision=precision,
        )
        if precision == "int8":
            embedder, decoder = parts["embedder"], model.backbone.decoder
            parts["embedder"] = write_row_embedder(decoder, rows_of(model), embedder)
        facts = assemble(model, parts, Path(work), cache_length, draft, share_table)
        checks = compare_with_keras(model, draft, turns, max_new_tokens, precision)
        refuse_failed(checks, target.name)
        notes = _notes(model, draft, facts, checks)
        size = draft.stat().st_size
    return ExportReport(
        format="litertlm",
        part="vlm",
        precision=precision,
        path=str(target),
        files={target.name: size},
        runtime=f"litert-lm {importlib.metadata.version('litert-lm')}, CPU",
        checks=checks,
        notes=notes,
    )


def compare_with_keras(
    model: keras.Model, bundle: Path, turns: Sequence[Turn], max_new_tokens: int, precision: str
) -> tuple[Check, ...]:
    """Asks the engine and Keras the same; each turn is a conversation of its own.

    Raises:
        ExportError: the engine does not run the bundle.
    """
    got = engine_answers(bundle, [[turn] for turn in turns], max_new_tokens)
    expected = keras_answers(model, turns, max_new_tokens)
    return compare_answers(turns, expected, [answers[0] for answers in got], precision)


def _check_request(model: keras.Model, precision: str) -> None:
    if getattr(model, "preprocessor", None) is None:
        raise ExportError(
            "a bundle holds the tokenizer, and this model has no preprocessor; load a whole preset"
        )
    if precision not in TEXT_GATES:
        raise ExportError(
            f"a bundle cannot be written in {precision!r}; use one of {', '.join(TEXT_GATES)}"
        )


def _turns(pictures: Sequence[Any] | None, question: str | Sequence[str]) -> list[Turn]:
    """Every question about every picture; of one picture nobody knows whether it counts."""
    questions = [question] if isinstance(question, str) else list(question)
    if not questions:
        raise ExportError("no question was given; give at least one to compare the answers to")
    sources = [] if pictures is None else list(pictures)
    sources += [] if len(sources) > 1 else drawn_pictures()
    loaded = [load_image(source) for source in sources]
    return [Turn(text, (picture,)) for picture in loaded for text in questions]


def _notes(
    model: keras.Model, draft: Path, facts: Facts, checks: Sequence[Check]
) -> tuple[str, ...]:
    """What the user has to know."""
    notes = [
        "checked on this machine's CPU; phones, GPUs and NPUs were not run",
        f"the engine stretches pictures: pad and resize them to {facts.height}x{facts.width} "
        "yourself, or use EngineChat",
        "the engine (0.18.1) spoils every turn after the first: open a new conversation with the "
        "history for each, or use EngineChat",
        "the engine takes a control token that a user spells for the token itself",
    ]
    if getattr(model.backbone.token_embedding, "tie_weights", False):
        notes.append(_table_note(draft))
    if len(checks) < 3:
        notes.append(
            "Keras answers every question the same for all pictures, so that the engine sees them "
            "is not shown; give pictures or questions that differ"
        )
    return tuple(notes)


def _table_note(draft: Path) -> str:
    """What the table of embeddings costs that also makes the logits."""
    sections = read_bundle(draft).sections
    embedder, decoder = (sections[MODEL_TYPES[name]] for name in ("embedder", "language_model"))
    if embedder[1] == decoder[1]:
        return (
            "the table of embeddings is in the file once: the section EMBEDDER reaches over "
            "PREFILL_DECODE; share_table=False writes each alone"
        )
    size = embedder[1] - embedder[0]
    return f"the table of embeddings is in the file twice, which costs {size} bytes"
