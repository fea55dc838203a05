"""A language model from a folder or a GGUF file: decoder with its weights, tokenizer, template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dl_techniques.checkpoints.config_files import CONFIG, read_json
from dl_techniques.checkpoints.gguf_file import GGUFStore
from dl_techniques.checkpoints.language.gguf_layout import HuggingFaceNames, gguf_tokenizer
from dl_techniques.checkpoints.language.maps import body_of, decoder_map
from dl_techniques.checkpoints.language.spec import (
    FAMILIES,
    DecoderSpec,
    build_decoder,
    check_layers,
    decoder_config,
)
from dl_techniques.checkpoints.tensor_files import TensorStore, open_tensors
from dl_techniques.checkpoints.tokenizers import tokenizer_from_files
from dl_techniques.checkpoints.weight_map import check_coverage, load_weights
from dl_techniques.data.damage import naming, reading
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import FastVLMJsonTokenizer
from dl_techniques.runtime.lazy_build import without_values

HEAD = "lm_head.weight"
# Buffers that older files keep beside the weights, computed anew from the config.
COMPUTED = (r".*rotary_emb\.inv_freq", r".*attn\.(masked_)?bias")


class LanguageModel(NamedTuple):
    """What a vision-language model needs of a language model.

    Args:
        backbone: KerasHub backbone with its weights.
        tokenizer: with a placeholder for pictures.
        template: name of the chat template, the tokenizer's own.
    """

    backbone: Any
    tokenizer: FastVLMJsonTokenizer
    template: str


def language_model_from(
    source: str | Path,
    dtype: Any = None,
    chat_template: str | None = None,
    image_token: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> LanguageModel:
    """Loads a language model that a FastVLM can be built on.

    Args:
        source: a Hugging Face folder (`config.json`, weights, tokenizer files), or a `.gguf` file.
        dtype: of the decoder, e.g. `"bfloat16"`.
        chat_template: name of a template. Defaults to what the tokenizer's control tokens tell.
        image_token: placeholder of a picture. Defaults to `<image>`, or a spare control token
            where the vocabulary fills the embedding table.
        progress: told the bytes of each array that was read.

    Raises:
        CheckpointError: files are missing, damaged, or of a model that is not supported.
        MissingExtraError: a format needs a package that is not installed.

    Example:
        >>> parts = language_model_from("SmolLM2-135M-Instruct")  # doctest: +SKIP
        >>> backbone = FastVLMBackbone(encoder, parts.backbone)  # doctest: +SKIP
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return _from_gguf(path, dtype, chat_template, image_token, progress)
    with reading(path / CONFIG):
        spec = decoder_config(read_json(path / CONFIG))
    with open_tensors(path) as store, naming(path):
        backbone, spec = load_decoder(store, spec, dtype, progress)
    tokenizer = tokenizer_from_files(path, spec.vocabulary_size, chat_template, image_token)
    return LanguageModel(backbone, tokenizer, tokenizer.chat_template)


def _from_gguf(
    path: Path,
    dtype: Any,
    chat_template: str | None,
    image_token: str | None,
    progress: Callable[[int], None] | None,
) -> LanguageModel:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a .gguf file or a folder")
    with reading(path), GGUFStore(path) as store:
        tokenizer = gguf_tokenizer(store, chat_template, image_token)
        spec = decoder_config(HuggingFaceNames(store).config)
    with naming(path), GGUFStore(path) as store:
        backbone, _ = load_decoder(HuggingFaceNames(store), spec, dtype, progress)
    return LanguageModel(backbone, tokenizer, tokenizer.chat_template)


def load_decoder(
    store: TensorStore,
    spec: DecoderSpec,
    dtype: Any = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Any, DecoderSpec]:
    """Builds a decoder and gives it the weights of a file.

    Args:
        store: with Hugging Face's names, with or without their `model.` in front.
        spec: of the config; whether logits are tied is read from the file.
        dtype: of the decoder.
        progress: told the bytes of each array that was read.

    Returns:
        The backbone, and the spec as it was built.

    Raises:
        CheckpointError: the file does not fit the spec; names are listed.
    """
    body = _body(store, spec)
    spec, ignored = _head(store, spec, body)
    check_layers(spec, store, body)
    # No random numbers for what is about to be read.
    with without_values() as unfilled:
        backbone = build_decoder(spec, dtype)
    entries = decoder_map(backbone, spec, body)
    check_coverage(store, entries, (*COMPUTED, *ignored))
    load_weights(store, entries, progress=progress)
    unfilled.fill_rest(of=backbone)
    return backbone, spec


def _body(store: Mapping[str, Any], spec: DecoderSpec) -> str:
    """What stands in front of the names: older files leave the first part out."""
    usual = body_of(spec.family)
    shorter = usual.removeprefix("model.")
    return usual if any(name.startswith(usual) for name in store) else shorter


def _head(store: TensorStore, spec: DecoderSpec, body: str) -> tuple[DecoderSpec, list[str]]:
    """The spec, tied if the file has no head of its own, and what of the file stays unused."""
    if HEAD not in store:
        return spec.with_tied(True), []
    if False in FAMILIES[spec.family].ties:
        return spec.with_tied(False), []
    # Always tied: a head in the file is either the table once more, or cannot be expressed.
    table = f"{body}embed_tokens.weight"
    same = table in store and np.array_equal(store.read(HEAD), store.read(table))
    return (spec if same else spec.with_tied(False)), [HEAD]
