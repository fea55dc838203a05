"""A tokenizer of any family, kept as the `tokenizer.json` of Hugging Face's `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tokenizers
from keras_hub import tokenizers as hub_tokenizers

from dl_techniques.compat.keras_hub_pipeline import add_special_token, find_special_tokens
from dl_techniques.data.damage import one_line, reading
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import get_template
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import IMAGE
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer, special_pattern

FILE_NAME = "tokenizer.json"
ROLES = ("start_token", "end_token", "end_token2", "pad_token", "image_token")


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMJsonTokenizer(FastVLMTokenizer):
    """Text to token ids and back, as a `tokenizer.json` says.

    The file is the tokenizer: byte-level BPE of any word splitting, sentencepiece BPE with byte
    fallback, its normalizer, its added tokens. Two things differ from running the file itself.
    Control tokens are placed by the chat template, so nothing is put around a text on its own;
    and decoding keeps the blank in front of a text, without which an answer that is read token by
    token would lose the blanks between its words.

    Attributes: as `FastVLMTokenizer`.

    Args:
        content: text of a `tokenizer.json`, or what `json` reads from it. None: `load_assets` or
            `from_preset` gives it later.
        end_token: control token that ends an answer.
        end_token2: another one.
        start_token: control token that begins a text or a turn, or None.
        pad_token: fills rows up. Defaults to `end_token2`.
        image_token: stands where a picture goes; added with the next free id if it is absent.
        chat_template: name of the marks around turns.
        **kwargs: `sequence_length`, `dtype`, `name`, ... of
            `keras_hub.tokenizers.BytePairTokenizer`.

    Raises:
        CheckpointError: no tokenizer, or one without the control tokens.

    Example:
        >>> small = FastVLMTokenizer.from_texts(["a red cube"] * 8, vocabulary_size=300)
        >>> same = FastVLMJsonTokenizer(small.to_hugging_face(), end_token="<|im_end|>")
        >>> same.tokenize_plain("a red cube") == small.tokenize_plain("a red cube")
        True
    """

    def __init__(
        self,
        content: str | Mapping[str, Any] | None = None,
        end_token: str = "<|im_end|>",
        end_token2: str | None = None,
        start_token: str | None = None,
        pad_token: str | None = None,
        image_token: str = IMAGE,
        chat_template: str = "chatml",
        **kwargs: Any,
    ) -> None:
        second = end_token2 or end_token
        given = (start_token, end_token, second, pad_token or second, image_token)
        for name, token in zip(ROLES, given, strict=True):
            if token is not None:
                add_special_token(self, token, name)
        if start_token is None:
            self.start_token = self.start_token_id = None
        # Vocabulary and merges are parts of the file: the parents' own are left out.
        hub_tokenizers.BytePairTokenizer.__init__(self, unsplittable_tokens=[], **kwargs)
        self.file_assets = [FILE_NAME]
        self.chat_template = get_template(chat_template).name
        if content is not None:
            self.set_content(content)

    def set_content(self, content: str | Mapping[str, Any]) -> None:
        """Takes the text of a `tokenizer.json`, or what `json` reads from it.

        Raises:
            CheckpointError: it is no tokenizer, or lacks a control token.
        """
        try:
            data = json.loads(content) if isinstance(content, str) else dict(content)
            data = with_added_token(without_frame(data), self.image_token)
            engine = tokenizers.Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
        except Exception as error:  # the library raises bare Exceptions
            reason = one_line(error)
            raise CheckpointError(f"no usable {FILE_NAME}: {reason}; download it again") from error
        vocabulary = engine.get_vocab(with_added_tokens=True)
        missing = [t for r in ROLES if (t := getattr(self, r)) is not None and t not in vocabulary]
        if missing:
            raise CheckpointError(
                f"the tokenizer has no {missing}, which the template {self.chat_template!r} needs; "
                "name the right template or tokens"
            )
        added = data.get("added_tokens", [])
        moved = [t["content"] for t in added if vocabulary.get(t["content"]) != t["id"]]
        if moved:
            raise CheckpointError(
                f"{FILE_NAME} gives {moved[:5]} ids that the library cannot, for there are gaps "
                "before them; the file is damaged: download it again"
            )
        special = [t["content"] for t in added if t.get("special")]
        self._tokenizer = engine
        self._special_pattern = special_pattern([*special, self.image_token])
        self.vocabulary = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
        self.merges = data["model"].get("merges", [])
        self.unsplittable_tokens = special
        find_special_tokens(self)

    def save_assets(self, dir_path: str) -> None:
        """Writes the file."""
        Path(dir_path, FILE_NAME).write_text(self.to_hugging_face(), encoding="utf-8")

    def load_assets(self, dir_path: str) -> None:
        """Reads the file that `save_assets` wrote."""
        with reading(Path(dir_path, FILE_NAME)):
            self.set_content(Path(dir_path, FILE_NAME).read_text(encoding="utf-8"))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments but the content, which is an asset."""
        config = super().get_config()
        for name in ("add_prefix_space", "unsplittable_tokens"):
            config.pop(name, None)
        return {
            **config,
            **{name: getattr(self, name) for name in ROLES},
            "chat_template": self.chat_template,
        }


def without_frame(data: Mapping[str, Any]) -> dict[str, Any]:
    """A `tokenizer.json` that puts nothing around a text and cuts nothing off it."""
    result = {**data, "post_processor": None, "truncation": None, "padding": None}
    result["decoder"] = _keeping_blanks(data.get("decoder"))
    return result


def _keeping_blanks(decoder: keras.Model) -> Any:
    """A decoder that leaves the blank in front of a text where it is."""
    if not isinstance(decoder, Mapping):
        return decoder
    if decoder.get("type") == "Sequence":
        steps = [_keeping_blanks(step) for step in decoder["decoders"]]
        return {**decoder, "decoders": [s for s in steps if s.get("type") != "Strip"]}
    if decoder.get("type") == "Metaspace":
        return {**decoder, "prepend_scheme": "never", "add_prefix_space": False}
    return decoder


def with_added_token(data: dict[str, Any], token: str) -> dict[str, Any]:
    """The same file with a special token, at the first id behind all others if it is new."""
    added: Sequence[Mapping[str, Any]] = data.get("added_tokens") or []
    if any(entry["content"] == token for entry in added):
        return data
    known = data["model"]["vocab"]
    number = known[token] if token in known else first_free_id(data)
    entry = {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return {**data, "added_tokens": [*added, entry]}


def first_free_id(data: Mapping[str, Any]) -> int:
    """One more than the largest id of a `tokenizer.json`.

    Raises:
        CheckpointError: it is no BPE, so ids are no table.
    """
    vocabulary = data["model"].get("vocab")
    if not isinstance(vocabulary, Mapping):
        raise CheckpointError(
            f"a {FILE_NAME} of the kind {data['model'].get('type')!r} is not supported; expected "
            "a BPE with a table of ids"
        )
    ids = [*vocabulary.values(), *(t["id"] for t in data.get("added_tokens") or [])]
    return 1 + max(int(i) for i in ids)
