"""GGUF files as if they were Hugging Face folders: config, names of weights, tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from dl_techniques.checkpoints.gguf_file import GGUFStore
from dl_techniques.checkpoints.tensor_files import TensorStore
from dl_techniques.checkpoints.tokenizers import byte_level_json, tokenizer_of
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import FastVLMJsonTokenizer

ARCHITECTURES = ("llama", "qwen2", "qwen3")
# In GGUF only Llama's two are stored with the halves of each rotation side by side.
PERMUTED = ("llama",)

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_PART = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)")

PRE_TOKENIZERS = {
    "smollm": "smollm",
    "qwen2": "qwen2",
    "llama-bpe": "llama3",
    "gpt-2": "gpt2",
    "default": "gpt2",
}
"""Our name for each way of word splitting that `tokenizer.ggml.pre` may tell."""

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # kinds of tokens


class HuggingFaceNames(TensorStore):
    """The arrays of a GGUF file under Hugging Face's names and in its order of rows.

    Args:
        store: the file.

    Raises:
        CheckpointError: an architecture that is not known, or an array without a counterpart.
    """

    def __init__(self, store: GGUFStore) -> None:
        super().__init__(store.path)
        self.store = store
        self.config = config_of(store)
        self._there: dict[str, str] = {}
        for name, info in store.items():
            if name == "rope_freqs.weight":
                raise CheckpointError(
                    f"{store.path}: rope scaling by a table of frequencies (rope_freqs) is not "
                    "supported; load the Hugging Face folder of the same model"
                )
            self._there[_renamed(name, store)] = name
            self._infos[_renamed(name, store)] = info

    def read(self, name: str) -> np.ndarray:
        """Reads one array as float32."""
        array = self.store.read(self._there[name])
        heads = {"q_proj.weight": "num_attention_heads", "k_proj.weight": "num_key_value_heads"}
        field = heads.get(name.split("self_attn.")[-1])
        if field is None or self.config["model_type"] not in PERMUTED:
            return array
        return unpermuted(array, int(self.config[field]))

    def close(self) -> None:
        """Lets go of the file."""
        self.store.close()


def unpermuted(array: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's interleaving of the two halves of each head: (rows, columns), rows moved.

    Example:
        >>> unpermuted(np.arange(4.0)[:, None], heads=1)[:, 0].tolist()
        [0.0, 2.0, 1.0, 3.0]
    """
    rows = array.shape[0] // heads // 2
    return array.reshape(heads, rows, 2, -1).swapaxes(1, 2).reshape(array.shape)


def _renamed(name: str, store: GGUFStore) -> str:
    match = _PART.fullmatch(name)
    if match is None or match["part"] not in NAMES:
        raise CheckpointError(f"{store.path}: {name!r} has no counterpart in this architecture")
    front = "" if match["layer"] is None else f"model.layers.{match['layer']}."
    return f"{front}{NAMES[match['part']]}.{match['kind']}"


def config_of(store: GGUFStore) -> dict[str, Any]:
    """The metadata as a Hugging Face text config.

    Raises:
        CheckpointError: an architecture or scaling that is not known, or a setting is missing.
    """
    kind = store.needed("general.architecture")
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{store.path}: GGUF architecture {kind!r} is not supported; expected one of "
            f"{list(ARCHITECTURES)}, or load the Hugging Face folder of the same model"
        )
    scaling = store.metadata.get(f"{kind}.rope.scaling.type", "none")
    if scaling != "none":
        raise CheckpointError(
            f"{store.path}: rope scaling {scaling!r} of a GGUF file is not supported; load the "
            "Hugging Face folder of the same model"
        )

    def setting(name: str) -> Any:
        return store.needed(f"{kind}.{name}")

    heads = setting("attention.head_count")
    return {
        "model_type": kind,
        "vocab_size": store["token_embd.weight"].shape[0],
        "num_hidden_layers": setting("block_count"),
        "hidden_size": setting("embedding_length"),
        "intermediate_size": setting("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": store.metadata.get(f"{kind}.attention.head_count_kv", heads),
        "head_dim": store.metadata.get(
            f"{kind}.attention.key_length", int(setting("embedding_length")) // int(heads)
        ),
        # Stored as float32, of which the shortest decimal form is what was meant.
        "rms_norm_eps": float(str(np.float32(setting("attention.layer_norm_rms_epsilon")))),
        "rope_theta": setting("rope.freq_base"),
        "tie_word_embeddings": "output.weight" not in store,
        "max_position_embeddings": setting("context_length"),
    }


def tokenizer_config_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a `tokenizer_config.json` would say."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}
    places = {k: metadata.get(f"tokenizer.ggml.{v}_token_id") for k, v in ids.items()}
    return {name: tokens[place] for name, place in places.items() if place is not None}


def gguf_tokenizer(
    store: GGUFStore, chat_template: str | None = None, image_token: str | None = None
) -> FastVLMJsonTokenizer:
    """The tokenizer in a GGUF file's metadata.

    Args:
        store: the file.
        chat_template: name of a template. Defaults to what the control tokens tell.
        image_token: placeholder of a picture. Defaults to `<image>` or a spare control token.

    Raises:
        CheckpointError: it is no byte-level BPE, or of an unknown word splitting.
    """
    kind = store.needed("tokenizer.ggml.model")
    pre = store.metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise CheckpointError(
            f"{store.path}: tokenizer {kind!r} with word splitting {pre!r} is not supported; "
            f"expected 'gpt2' with one of {list(PRE_TOKENIZERS)}"
        )
    tokens = store.needed("tokenizer.ggml.tokens")
    kinds = store.needed("tokenizer.ggml.token_type")
    added = {t: i for i, t in enumerate(tokens) if kinds[i] in (CONTROL, USER_DEFINED)}
    special = [t for t, i in added.items() if kinds[i] == CONTROL]
    vocabulary = {t: i for i, t in enumerate(tokens) if kinds[i] != UNUSED}
    data = byte_level_json(
        PRE_TOKENIZERS[pre],
        vocabulary,
        store.needed("tokenizer.ggml.merges"),
        added,
        special,
        bool(store.metadata.get("tokenizer.ggml.add_space_prefix", False)),
    )
    rows = store["token_embd.weight"].shape[0]
    return tokenizer_of(data, tokenizer_config_of(store.metadata), rows, chat_template, image_token)
