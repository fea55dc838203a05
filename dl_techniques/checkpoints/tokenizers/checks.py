"""Whether a `tokenizer.json` and a `tokenizer_config.json` have the parts that are used here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dl_techniques.data.damage import of_kind, short, whole_number
from dl_techniques.errors import DamagedFileError

LARGEST_ID = 2**31 - 1
NAMED = ("bos_token", "eos_token", "pad_token")


def check_tokenizer(data: Mapping[str, Any], what: str = "tokenizer.json") -> None:
    """Checks vocabulary and added tokens.

    Args:
        data: content of a `tokenizer.json`.
        what: the file, for messages.

    Raises:
        DamagedFileError: a part is missing or of another kind; file and field are named.
    """
    if "model" not in data:
        raise DamagedFileError(f"{what}: holds no model; download it again")
    model = of_kind(data.get("model"), dict, f"{what}: model")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, Mapping):  # other kinds are refused where ids are looked up
        check_vocabulary(vocabulary, f"{what}: model.vocab")
    elif not isinstance(vocabulary, list):
        of_kind(vocabulary, dict, f"{what}: model.vocab")
    added = of_kind(data.get("added_tokens") or [], list, f"{what}: added_tokens")
    for place, token in enumerate(added):
        where = f"{what}: added_tokens[{place}]"
        of_kind(token, dict, where)
        of_kind(token.get("content"), str, f"{where}.content")
        whole_number(token.get("id"), f"{where}.id", 0, LARGEST_ID)


def check_vocabulary(vocabulary: Mapping[str, Any], what: str) -> None:
    """Checks that every token has an id of its own.

    Raises:
        DamagedFileError: it has none, or two tokens have the same; they are named.
    """
    owners: dict[int, str] = {}
    for token, number in vocabulary.items():
        number = whole_number(number, f"{what}: the id of {short(token)}", 0, LARGEST_ID)
        if number in owners:
            raise DamagedFileError(
                f"{what}: {short(owners[number])} and {short(token)} have the same id {number}; "
                "the file is damaged: get it again"
            )
        owners[number] = token


def check_tokenizer_config(config: Mapping[str, Any], what: str = "tokenizer_config.json") -> None:
    """Checks the control tokens that a `tokenizer_config.json` names.

    Raises:
        DamagedFileError: a part is of another kind; file and field are named.
    """
    decoder = of_kind(
        config.get("added_tokens_decoder") or {}, dict, f"{what}: added_tokens_decoder"
    )
    for number, token in decoder.items():
        where = f"{what}: added_tokens_decoder.{short(number)}"
        if not str(number).isdigit():
            raise DamagedFileError(f"{where}: expected an id; the file is damaged: get it again")
        of_kind(token, dict, where)
        of_kind(token.get("content"), str, f"{where}.content")
    for name in NAMED:
        token = config.get(name)
        token = token.get("content") if isinstance(token, Mapping) else token
        if token is not None:
            of_kind(token, str, f"{what}: {name}")
