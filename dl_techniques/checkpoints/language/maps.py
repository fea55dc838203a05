"""Tables between Hugging Face's names of a text decoder and KerasHub's variables.

KerasHub keeps the projections of attention as (width, heads, numbers a head), Hugging Face as
matrices (heads * numbers a head, width). The rest differs in names and in transposition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dl_techniques.checkpoints.language.joined import Joined
from dl_techniques.checkpoints.language.spec import DecoderSpec
from dl_techniques.checkpoints.weight_map import (
    AS_IS,
    DENSE,
    Entry,
    Rule,
    Transform,
    WeightMap,
    build_map,
)
from dl_techniques.typing import Sides

if TYPE_CHECKING:
    import keras

OPT_OFFSET = 2
"""Rows in front of OPT's table of positions, for padding; no position reads them."""

HEADS_OUT = Transform(
    "(heads * size, width) to (width, heads, size)",
    lambda a, s: a.T.reshape(s),
    lambda a: a.reshape(a.shape[0], -1).T,
    lambda s: (s[1] * s[2], s[0]),
)
HEADS_IN = Transform(
    "(width, heads * size) to (heads, size, width)",
    lambda a, s: a.T.reshape(s),
    lambda a: a.reshape(-1, a.shape[2]).T,
    lambda s: (s[2], s[0] * s[1]),
)
HEADS_FIRST = Transform(
    "(heads * size, width) to (heads, width, size)",
    lambda a, s: a.reshape(s[0], s[2], s[1]).transpose(0, 2, 1),
    lambda a: a.transpose(0, 2, 1).reshape(-1, a.shape[1]),
    lambda s: (s[0] * s[2], s[1]),
)
HEAD_BIAS = Transform(
    "(heads * size,) to (heads, size)",
    lambda a, s: a.reshape(s),
    lambda a: a.reshape(-1),
    lambda s: (s[0] * s[1],),
)


def _drop_offset(array: np.ndarray, shape: Sides) -> np.ndarray:
    return array[OPT_OFFSET:]


def _add_offset(array: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(array[:OPT_OFFSET]), array])


OPT_POSITIONS = Transform(
    "positions from row 2 on", _drop_offset, _add_offset, lambda s: (s[0] + OPT_OFFSET, s[1])
)

_LAYER, _THERE = "transformer_layer_{i}/", "layers.{i}."
_EMBEDDING = Rule("token_embedding/embeddings", "embed_tokens.weight")
_NORM = Rule("sequence_output_layernorm/scale", "norm.weight")
_MLP = [
    Rule(f"{_LAYER}feedforward_gate_dense/kernel", f"{_THERE}mlp.gate_proj.weight", DENSE),
    Rule(f"{_LAYER}feedforward_intermediate_dense/kernel", f"{_THERE}mlp.up_proj.weight", DENSE),
    Rule(f"{_LAYER}feedforward_output_dense/kernel", f"{_THERE}mlp.down_proj.weight", DENSE),
]


def _attention(ours: str, theirs: str, output: str, kernel: Transform = HEADS_OUT) -> list[Rule]:
    """Kernels and, where they exist, biases of an attention layer."""
    rules = [
        rule
        for mine, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
        for rule in (
            Rule(f"{ours}{mine}/kernel", f"{theirs}{name}.weight", kernel),
            Rule(f"{ours}{mine}/bias", f"{theirs}{name}.bias", HEAD_BIAS),
        )
    ]
    return [
        *rules,
        Rule(f"{ours}attention_output/kernel", f"{theirs}{output}.weight", HEADS_IN),
        Rule(f"{ours}attention_output/bias", f"{theirs}{output}.bias"),
    ]


def _renamed(pairs: Iterable[tuple[str, str]], ours: str, theirs: str) -> list[Rule]:
    return [Rule(ours + mine, theirs + name) for mine, name in pairs]


LLAMA = [
    _EMBEDDING,
    _NORM,
    *_attention(f"{_LAYER}self_attention/", f"{_THERE}self_attn.", "o_proj"),
    # Qwen3 alone has these two.
    Rule(
        f"{_LAYER}self_attention/{{part}}_dense_layernorm/scale",
        f"{_THERE}self_attn.{{letter}}_norm.weight",
    ),
    *_MLP,
    *_renamed(
        [
            ("self_attention_layernorm/scale", "input_layernorm.weight"),
            ("feedforward_layernorm/scale", "post_attention_layernorm.weight"),
        ],
        _LAYER,
        _THERE,
    ),
]
PHI3 = [
    _EMBEDDING,
    _NORM,
    *_attention(f"{_LAYER}attention/", f"{_THERE}self_attn.", "o_proj"),
    *_MLP,
    *_renamed(
        [
            ("pre_attention_layernorm/scale", "input_layernorm.weight"),
            ("post_attention_layernorm/scale", "post_attention_layernorm.weight"),
        ],
        _LAYER,
        _THERE,
    ),
]
OPT = [
    Rule("embeddings/token_embedding/embeddings", "embed_tokens.weight"),
    Rule("embeddings/position_embedding/embeddings", "embed_positions.weight", OPT_POSITIONS),
    Rule("layer_norm/gamma", "final_layer_norm.weight"),
    Rule("layer_norm/beta", "final_layer_norm.bias"),
    *_attention(f"{_LAYER}self_attention/", f"{_THERE}self_attn.", "out_proj"),
    Rule(f"{_LAYER}feedforward_intermediate_dense/kernel", f"{_THERE}fc1.weight", DENSE),
    Rule(f"{_LAYER}feedforward_output_dense/kernel", f"{_THERE}fc2.weight", DENSE),
    *_renamed(
        [
            ("feedforward_intermediate_dense/bias", "fc1.bias"),
            ("feedforward_output_dense/bias", "fc2.bias"),
            ("self_attention_layer_norm/gamma", "self_attn_layer_norm.weight"),
            ("self_attention_layer_norm/beta", "self_attn_layer_norm.bias"),
            ("feedforward_layer_norm/gamma", "final_layer_norm.weight"),
            ("feedforward_layer_norm/beta", "final_layer_norm.bias"),
        ],
        _LAYER,
        _THERE,
    ),
]
_BLOCK = "decoder_block_{i}/"
GEMMA3 = [
    _EMBEDDING,
    Rule("final_normalization/scale", "norm.weight"),
    *_attention(f"{_BLOCK}attention/", f"{_THERE}self_attn.", "o_proj", HEADS_FIRST),
    Rule(f"{_BLOCK}ffw_gating/kernel", f"{_THERE}mlp.gate_proj.weight", DENSE),
    Rule(f"{_BLOCK}ffw_gating_2/kernel", f"{_THERE}mlp.up_proj.weight", DENSE),
    Rule(f"{_BLOCK}ffw_linear/kernel", f"{_THERE}mlp.down_proj.weight", DENSE),
    *_renamed(
        [
            ("attention/query_norm/scale", "self_attn.q_norm.weight"),
            ("attention/key_norm/scale", "self_attn.k_norm.weight"),
            ("pre_attention_norm/scale", "input_layernorm.weight"),
            ("post_attention_norm/scale", "post_attention_layernorm.weight"),
            ("pre_ffw_norm/scale", "pre_feedforward_layernorm.weight"),
            ("post_ffw_norm/scale", "post_feedforward_layernorm.weight"),
        ],
        _BLOCK,
        _THERE,
    ),
]
TABLES = {
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "llama": LLAMA,
    "phi3": PHI3,
    "opt": OPT,
    "gemma3_text": GEMMA3,
}
BODIES = {"opt": "model.decoder."}
"""What stands in front of the names of everything but the head, where it is not `model.`"""

# Phi3's files keep these in one array each, one part below the other.
PHI3_JOINED = {
    "self_attn.qkv_proj.weight": ("q_proj", "k_proj", "v_proj"),
    "mlp.gate_up_proj.weight": ("gate_proj", "up_proj"),
}


def body_of(family: str) -> str:
    """What Hugging Face puts in front of a decoder's names, e.g. `model.`"""
    return BODIES.get(family, "model.")


def decoder_map(
    backbone: keras.Model, spec: DecoderSpec, body: str | None = None, head: str = "lm_head.weight"
) -> WeightMap:
    """Names in a Hugging Face file for every variable of a decoder.

    Args:
        backbone: from `build_decoder`.
        spec: the same that built it.
        body: what stands in front of the names. Defaults to Hugging Face's (`model.`).
        head: name of the untied output matrix.

    Raises:
        CheckpointError: a variable that the family's table does not know.
    """
    body = body_of(spec.family) if body is None else body
    rules = [Rule(r.target, body + r.source, r.transform) for r in TABLES[spec.family]]
    rules.append(Rule("token_embedding/reverse_embeddings", head, DENSE))
    entries = build_map(((_path(v), v) for v in backbone.weights), rules, lambda f: _letters(f))
    return _joined(entries, PHI3_JOINED) if spec.family == "phi3" else entries


def _path(variable: keras.Variable) -> str:
    return str(variable.path)


def _letters(fields: dict[str, str]) -> dict[str, str]:
    """Qwen3's norms are called `q_norm` and `k_norm` there."""
    return {"letter": fields["part"][0]} if "part" in fields else {}


def _joined(entries: WeightMap, groups: Mapping[str, Sequence[str]]) -> WeightMap:
    """The map with the parts of each group under the name of their one array."""
    result: WeightMap = {}
    for name, entry in entries.items():
        place = next(((g, p) for g, parts in groups.items() for p in parts if p in name), None)
        if place is None:
            result[name] = entry
            continue
        group, part = place
        stem = name[: name.index(group.split(".")[0])]
        if stem + group in result:
            continue
        names = [name.replace(part, other) for other in groups[group]]
        joined = Joined([entries[n] for n in names])
        result[stem + group] = Entry(joined.path, joined, AS_IS)
    return result
