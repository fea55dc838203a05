"""Tokenizers out of Hugging Face folders: `tokenizer.json`, or the older files of each family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.config_files import read_json, read_json_if_there
from dl_techniques.checkpoints.tokenizers.checks import (
    check_tokenizer,
    check_tokenizer_config,
    check_vocabulary,
)
from dl_techniques.checkpoints.tokenizers.parts import byte_level_json
from dl_techniques.checkpoints.tokenizers.ranks import read_ranks, vocabulary_of
from dl_techniques.data.damage import reading, short
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import (
    TEMPLATES,
    get_template,
    template_of,
)
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import IMAGE
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import (
    FastVLMJsonTokenizer,
    first_free_id,
    with_added_token,
)

Json = dict[str, Any]

SPLITTERS = {"Qwen2Tokenizer": "qwen2", "GPT2Tokenizer": "gpt2", "OPTTokenizer": "gpt2"}
"""Word splitting of the families that may come without a `tokenizer.json`, by tokenizer class."""

# Control tokens that no chat uses, for vocabularies that fill their embedding table: the first
# kind that is there gives the place of a picture.
SPARE = ("<|reserved_special_token_", "<|dummy_", "<unused", "<|placeholder", "<empty_output>")


def tokenizer_from_files(
    folder: str | Path,
    rows: int | None = None,
    chat_template: str | None = None,
    image_token: str | None = None,
) -> FastVLMJsonTokenizer:
    """Reads the tokenizer of a Hugging Face folder.

    Args:
        folder: with `tokenizer.json`, or `vocab.json` and `merges.txt`, or one `.tiktoken` file;
            `tokenizer_config.json` beside it is read as well.
        rows: of the embedding table. Where the vocabulary fills it, a picture's placeholder is
            one of its spare control tokens instead of a new `<image>`.
        chat_template: name of a template. Defaults to what the control tokens tell.
        image_token: placeholder of a picture. Defaults to `<image>`, added if absent.

    Raises:
        CheckpointError: files are missing, damaged or do not belong together.
        PromptError: the chat template is unknown.
    """
    folder = Path(folder).expanduser()
    config = read_json_if_there(folder / "tokenizer_config.json")
    with reading(folder):
        check_tokenizer_config(config)
        content = _content(folder, config)
        check_tokenizer(content)
        data = _with_config_tokens(content, config)
        return tokenizer_of(data, config, rows, chat_template, image_token)


def tokenizer_of(
    data: Json,
    config: Mapping[str, Any],
    rows: int | None = None,
    chat_template: str | None = None,
    image_token: str | None = None,
) -> FastVLMJsonTokenizer:
    """The tokenizer of a `tokenizer.json` and a `tokenizer_config.json` that have been read."""
    known = set(data["model"]["vocab"]) | {t["content"] for t in data.get("added_tokens") or []}
    template = get_template(chat_template or template_of(known))
    second = template.second_end if template.second_end in known else _named(config, "eos_token")
    pad = _named(config, "pad_token")
    return FastVLMJsonTokenizer(
        data,
        end_token=str(template.end),
        end_token2=second if second in known else None,
        start_token=next((str(t) for t in _starts(template.name, config) if t in known), None),
        pad_token=pad if pad in known else None,
        image_token=image_token or _placeholder(data, known, rows),
        chat_template=template.name,
    )


def _starts(template: str, config: Mapping[str, Any]) -> Iterable[str | None]:
    """Control tokens that may begin a conversation, the template's first."""
    family = TEMPLATES[template]
    marks = family.opening("user")
    return [
        family.begin,
        *(m for m in marks[:1] if m.startswith("<|")),
        _named(config, "bos_token"),
    ]


def _placeholder(data: Json, known: set[str], rows: int | None) -> str:
    """The token that stands where a picture goes: `<image>`, or a spare one of a full table."""
    if IMAGE in known or rows is None or first_free_id(data) < rows:
        return IMAGE
    for sign in SPARE:
        spare = sorted((t for t in known if t.startswith(sign)), key=lambda t: (len(t), t))
        if spare:
            return spare[0]
    raise CheckpointError(
        f"the vocabulary fills all {rows} rows of the embedding table and has no spare control "
        "token for the place of a picture; name one with image_token"
    )


def _content(folder: Path, config: Mapping[str, Any]) -> Json:
    """The `tokenizer.json` of a folder, read or put together."""
    if (folder / "tokenizer.json").is_file():
        return read_json(folder / "tokenizer.json")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocabulary = read_json(folder / "vocab.json")
        check_vocabulary(vocabulary, str(folder / "vocab.json"))
        with reading(folder / "merges.txt"):
            merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [line.rstrip("\r") for line in merges]
    elif len(files := sorted(folder.glob("*.tiktoken"))) == 1:
        vocabulary, merges = vocabulary_of(read_ranks(files[0]))
        config = {"tokenizer_class": "Qwen2Tokenizer", **config}
    else:
        raise CheckpointError(
            f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt, or "
            "one .tiktoken file"
        )
    return byte_level_json(
        _splitter(config, folder), vocabulary, merges, {}, (), bool(config.get("add_prefix_space"))
    )


def _splitter(config: Mapping[str, Any], folder: Path) -> str:
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    if kind not in SPLITTERS:
        raise CheckpointError(
            f"{folder}: vocab.json and merges.txt do not say how words are split, and "
            f"tokenizer_class is {short(kind)}; expected one of {list(SPLITTERS)} in "
            "tokenizer_config.json, or add a tokenizer.json"
        )
    return SPLITTERS[kind]


def _with_config_tokens(data: Json, config: Mapping[str, Any]) -> Json:
    """The file with the added tokens that only `tokenizer_config.json` knows, at their ids."""
    decoder = config.get("added_tokens_decoder") or {}
    there = {t["content"] for t in data.get("added_tokens") or []}
    entries = [
        {**_FLAGS, **{k: v for k, v in token.items() if k in _FLAGS}, "id": int(number)}
        | {"content": token["content"]}
        for number, token in sorted(decoder.items(), key=lambda item: int(item[0]))
        if token["content"] not in there
    ]
    data = {**data, "added_tokens": [*(data.get("added_tokens") or []), *entries]}
    for name in ("bos_token", "eos_token", "pad_token"):
        token = _named(config, name)
        if token in data["model"]["vocab"]:
            data = with_added_token(data, str(token))
    return data


_FLAGS = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


def _named(config: Mapping[str, Any], name: str) -> str | None:
    """A token of `tokenizer_config.json`, which stands there as text or as a table."""
    token = config.get(name)
    return token.get("content") if isinstance(token, Mapping) else token
