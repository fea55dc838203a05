"""From a model and its parts to a bundle: the facts, the rules, the file, read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dl_techniques.export.litert_vlm.tokenizer_file import special_tokens, write_tokenizer_json
from dl_techniques.export.litertlm.assembling import build_bundle, fill_vocabulary, llm_metadata
from dl_techniques.export.litertlm.contract import Facts, check_bundle, check_parts
from dl_techniques.export.litertlm.signatures import read_signatures
from dl_techniques.export.litertlm.template import jinja_template
from dl_techniques.hosts.litertlm_bundle import MODEL_TYPES, HostRule, read_bundle
from dl_techniques.models.vlm.fast_vlm.answer.requests import stop_ids_of
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import get_template

if TYPE_CHECKING:
    import keras


def assemble(
    model: keras.Model,
    parts: Mapping[str, Path],
    work: Path,
    cache_length: int,
    path: Path,
    share_table: bool = True,
) -> Facts:
    """Checks the parts, writes the bundle and reads it back.

    Args:
        model: the model at the size of its pictures, with its preprocessor.
        parts: of `litert_vlm.write_parts`.
        work: folder for what is needed in between.
        cache_length: slots of the caches.
        path: the bundle.
        share_table: as for `build_bundle`.

    Raises:
        ExportError: the parts, the tokenizer and the model do not fit together.
    """
    signatures = {name: read_signatures(parts[name]) for name in MODEL_TYPES if name in parts}
    preprocessor = model.preprocessor
    tokenizer = write_tokenizer_json(preprocessor.tokenizer, work / "tokenizer.json")
    facts = facts_of(model, cache_length, fill_vocabulary(tokenizer, rows_of(model)))
    check_parts(signatures, facts)
    family = get_template(preprocessor.tokenizer.chat_template)
    template = jinja_template(family, preprocessor.system_prompt, preprocessor.template)
    rule = host_rule(preprocessor)
    build_bundle(parts, tokenizer, llm_metadata(facts, template), rule, path, share_table)
    check_bundle(read_bundle(path), facts)
    return facts


def rows_of(model: keras.Model) -> int:
    """Ids that the model can write."""
    return int(model.backbone.token_embedding.input_dim)


def facts_of(model: keras.Model, cache_length: int, tokens: int) -> Facts:
    """The numbers of a model.

    Args:
        model: with its preprocessor.
        cache_length: slots of the caches.
        tokens: ids that the tokenizer of the bundle knows.
    """
    height, width = model.preprocessor.image_converter.image_size
    return Facts(
        height,
        width,
        image_tokens=model.preprocessor.num_image_tokens,
        tokens=tokens,
        cache_length=cache_length,
        stop_ids=stop_ids_of(model.preprocessor, "auto"),
    )


def host_rule(preprocessor: keras.layers.Layer) -> HostRule:
    """What the program around the engine has to do, from the model's preprocessor."""
    converter = preprocessor.image_converter
    height, width = converter.image_size
    return HostRule(
        height,
        width,
        mode=converter.mode,
        fill=tuple(int(255 * value) for value in converter.mean),
        interpolation=converter.interpolation,
        max_pixels=converter.max_pixels,
        image_tokens=preprocessor.num_image_tokens,
        layout=preprocessor.template,
        special=tuple(special_tokens(preprocessor.tokenizer)),
    )
