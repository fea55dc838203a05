"""The `tokenizer.json` that a phone's tokenizer reads, checked against the model's own.

The file is in the format of Hugging Face's `tokenizers`, which LiteRT-LM and the host script
read. Special tokens are in it as such, so running it on a text that spells one gives the control
token; the package's own `tokenize_plain` never does. Hosts split such texts (`special_tokens`).
"""

from __future__ import annotations

from pathlib import Path

import tokenizers

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import ExportError
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

# Digits, contractions, blanks, several scripts, a composed and a decomposed letter, emoji.
_PROBES = (
    "What is in this picture?",
    "  two  blanks,\n\n lines\tand tabs ",
    "It's 12345.67 or 1,000,000: we'll see!",
    "Größe, naïve, e\u0301 and \u00e9, Ελληνικά, русский, 漢字かな, العربية",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u00bd \u2126 #hash @at https://a.b/c?d=e",
    "def f(x):\n    return {'a': [x ** 2]}\n",
)


def write_tokenizer_json(tokenizer: FastVLMTokenizer, path: str | Path) -> Path:
    """Writes the tokenizer as a `tokenizer.json` and reads it back.

    Args:
        tokenizer: `FastVLMTokenizer` or `FastVLMJsonTokenizer`.
        path: the file; an older one is replaced when the new one is right.

    Returns:
        The path.

    Raises:
        ExportError: the text written does not give the ids that the model was trained with.

    Example:
        >>> import tempfile
        >>> small = FastVLMTokenizer.from_texts(["a red cube"] * 8, vocabulary_size=300)
        >>> path = write_tokenizer_json(small, Path(tempfile.mkdtemp()) / "tokenizer.json")
        >>> tokenizers.Tokenizer.from_file(str(path)).encode("a red cube").ids == (
        ...     small.tokenize_plain("a red cube"))
        True
    """
    text = tokenizer.to_hugging_face()
    _check(tokenizer, tokenizers.Tokenizer.from_str(text))
    with atomic_writer(path) as file:
        file.write(text)
    return Path(path)


def special_tokens(tokenizer: FastVLMTokenizer) -> list[str]:
    """The tokens that a user's text must never turn into: what `tokenize_plain` cuts apart."""
    return list(dict.fromkeys([*tokenizer.unsplittable_tokens, tokenizer.image_token]))


def _check(tokenizer: FastVLMTokenizer, engine: tokenizers.Tokenizer) -> None:
    """Holds the file's tokenizer against the model's, special tokens and all ids included."""
    vocabulary = engine.get_vocab(with_added_tokens=True)
    differing = [t for t, i in tokenizer.vocabulary.items() if vocabulary.get(t) != i]
    if differing or len(vocabulary) != len(tokenizer.vocabulary):
        raise ExportError(
            f"tokenizer.json holds {len(vocabulary)} tokens, the model {len(tokenizer.vocabulary)}"
            f", and {len(differing)} have other ids (e.g. {differing[:3]}); save the tokenizer anew"
        )
    special = special_tokens(tokenizer)
    around = [f"{a}user\nred {b} cube{a}" for a, b in zip(special, special[::-1], strict=True)]
    for probe in (*_PROBES, *around):
        expected = [int(i) for i in tokenizer.tokenize(probe)]
        got = engine.encode(probe, add_special_tokens=False).ids
        if expected != got:
            raise ExportError(
                f"tokenizer.json turns {probe!r} into {got[:8]}..., the model's tokenizer into "
                f"{expected[:8]}...; it has steps that the file cannot hold"
            )
