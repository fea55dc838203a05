"""Tokenizers of other people: Hugging Face folders and tables of ranks into ours."""

from dl_techniques.checkpoints.tokenizers.folder import tokenizer_from_files, tokenizer_of
from dl_techniques.checkpoints.tokenizers.parts import WORD_SPLITTERS, byte_level_json
from dl_techniques.checkpoints.tokenizers.ranks import byte_symbols, read_ranks, vocabulary_of

__all__ = [
    "WORD_SPLITTERS",
    "byte_level_json",
    "byte_symbols",
    "read_ranks",
    "tokenizer_from_files",
    "tokenizer_of",
    "vocabulary_of",
]
