"""Metadata, tokenizer, template and parts of a bundle, and the file made of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.contract import Facts
from dl_techniques.export.litertlm.sharing import table_place, write_without_table
from dl_techniques.hosts.litertlm_bundle import (
    HOST_KEY,
    MODEL_TYPES,
    HostRule,
    import_builder,
    move_end,
    read_bundle,
)
from dl_techniques.version import __version__

RESERVED = "<|reserved_{}|>"


def llm_metadata(facts: Facts, template: str) -> Any:
    """What the engine has to know about the model, as its `LlmMetadata` message.

    Args:
        facts: the model's numbers.
        template: Jinja text.

    Example:
        >>> facts = Facts(64, 64, 16, 2048, 512, (2, 0))
        >>> llm_metadata(facts, "").max_num_tokens
        512
    """
    import_builder()
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    metadata = llm_metadata_pb2.LlmMetadata(
        max_num_tokens=facts.cache_length,
        jinja_prompt_template=template,
        supports_thinking=False,
        supports_function_calling=False,
    )
    for number in facts.stop_ids:
        metadata.stop_tokens.add().token_ids.ids.append(number)
    metadata.llm_model_type.fast_vlm.image_tensor_height = facts.height
    metadata.llm_model_type.fast_vlm.image_tensor_width = facts.width
    return metadata


def fill_vocabulary(path: Path, size: int) -> int:
    """Gives a name to every id that the model can write and the tokenizer does not know.

    Published models have more rows than tokens. The new names stand in the table alone, no merge
    leads to them, so no text is ever tokenized to one.

    Args:
        path: `tokenizer.json`; rewritten.
        size: ids of the model.

    Returns:
        Number of ids that the file knows now.

    Raises:
        ExportError: the tokenizer has more ids than the model, or is no BPE.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    table = data["model"].get("vocab")
    if data["model"].get("type") != "BPE" or data["model"].get("ignore_merges"):
        raise ExportError("tokenizer.json must hold a BPE that goes by its merges; got another")
    for token in data.get("added_tokens", []):
        table[token["content"]] = token["id"]
    known = set(table.values())
    if max(known) >= size:
        raise ExportError(
            f"the tokenizer has ids up to {max(known)} and the model {size} rows; they do not "
            "belong together"
        )
    missing = [i for i in range(size) if i not in known]
    table.update({RESERVED.format(i): i for i in missing})
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return len(known) + len(missing)


def build_bundle(
    parts: Mapping[str, Path],
    tokenizer: Path,
    metadata: Any,
    rule: HostRule,
    path: Path,
    share_table: bool = True,
) -> None:
    """Writes a bundle; nothing is checked here.

    Args:
        parts: name of a part (`MODEL_TYPES`) -> its LiteRT file.
        tokenizer: `tokenizer.json`.
        metadata: of `llm_metadata`.
        rule: what the program around the engine has to know.
        path: the `.litertlm` file.
        share_table: let the embedder read its table in the decoder's section, if it is there.
    """
    library = import_builder()
    block = library.litertlm_core.BLOCK_SIZE
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sections.") as folder:
        files = {name: parts[name] for name in MODEL_TYPES}
        place = table_place(files["embedder"], files["language_model"]) if share_table else None
        if place is not None:
            files["embedder"] = Path(folder) / "embedder.tflite"
            write_without_table(parts["embedder"], files["embedder"], place, block)
        source = Path(folder) / "metadata.pb"
        source.write_bytes(metadata.SerializeToString())
        with path.open("wb") as stream:
            _builder(library, files, tokenizer, source, rule).build(stream)
    if place is not None:
        end = read_bundle(path).sections[MODEL_TYPES["language_model"]][1]
        move_end(path, MODEL_TYPES["embedder"], end)


def _builder(
    library: Any, files: Mapping[str, Path], tokenizer: Path, metadata: Path, rule: HostRule
) -> Any:
    """The library's builder with all sections, in the order of `MODEL_TYPES`."""
    builder, text = library.LitertLmFileBuilder(), library.DType.STRING
    for key, value in (("authors", f"dl-techniques {__version__}"), (HOST_KEY, rule.to_json())):
        builder.add_system_metadata(library.Metadata(key=key, value=value, dtype=text))
    builder.add_llm_metadata(str(metadata))
    builder.add_hf_tokenizer(str(tokenizer))
    for name, kind in MODEL_TYPES.items():
        builder.add_tflite_model(str(files[name]), library.TfLiteModelType(kind))
    return builder
