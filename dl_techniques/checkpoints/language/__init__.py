"""Text decoders of other people: Hugging Face folders and GGUF files into KerasHub backbones."""

from dl_techniques.checkpoints.language.gguf_layout import HuggingFaceNames, gguf_tokenizer
from dl_techniques.checkpoints.language.loader import (
    LanguageModel,
    language_model_from,
    load_decoder,
)
from dl_techniques.checkpoints.language.maps import body_of, decoder_map
from dl_techniques.checkpoints.language.spec import (
    FAMILIES,
    DecoderSpec,
    build_decoder,
    check_layers,
    decoder_config,
)
from dl_techniques.checkpoints.tokenizers import tokenizer_from_files

__all__ = [
    "FAMILIES",
    "DecoderSpec",
    "HuggingFaceNames",
    "LanguageModel",
    "body_of",
    "build_decoder",
    "check_layers",
    "decoder_config",
    "decoder_map",
    "gguf_tokenizer",
    "language_model_from",
    "load_decoder",
    "tokenizer_from_files",
]
