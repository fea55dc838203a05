"""Small tokenizers of every family, built part by part as repositories have them.

Chat templates are those that the families publish in their `tokenizer_config.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers as tk
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

PROBES = [
    "plain words",
    "two  spaces,   three",
    " leading and trailing  ",
    "def f(x):\n    return  x\n\n\n",
    "\t\ttabs\tand\r\nwindows\r\n\r\nlines\r",
    " \n \n x",
    "12345 3.14159 007 １２３ ⅷ ²",
    "I'm we'RE it'S DON'T o'clock",
    "e\u0301 café A\u030a \u1e9b\u0323 \u1100\u1161",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "日本語のテキスト。中文测试，한국어",
    "नमस्ते שלום مرحبا",
    "\u00a0no-break\u3000ideographic\u2009thin\u2028line",
    "https://a.b/c?d=e&f=g#h ...---...!!!\n\n",
    "a\x00b\x7f\ufeff",
    "",
    " ",
    "\n",
]
CORPUS = [
    "The red cube is to the left of the blue ball. How many cats are there? 12 cats.",
    "def f(x):\n    return x  # two  spaces\n\n\tIt's a café; they're ÅÅ 日本語 日本 👍🏽👍",
    "there   are\r\nlines\n\n\n",
    "!!!\n\n ... the the the  the user assistant system model",
] * 5
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


@dataclass(frozen=True)
class Family:
    """A family's tokenizer, its control tokens, and its chat template.

    Args:
        template: our name of the template.
        special: control tokens, in the order of their ids.
        jinja: the published chat template.
        system: whether it knows a system turn.
        first: control tokens stand in front of the vocabulary.
        rstrip: control tokens swallow white space behind them.
    """

    template: str
    special: tuple[str, ...]
    jinja: str
    system: bool = True
    first: bool = False
    rstrip: bool = False
    config: dict[str, Any] = field(default_factory=dict)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set c = bos_token + c %}"
    "{% endif %}{{ c }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] +"
    " '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set lead = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}{% else %}"
    "{% set lead = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (lead if loop.first else '') + m['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

FAMILIES: dict[str, Family] = {
    "qwen2": Family(
        "chatml",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        CHATML,
        config={"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"},
    ),
    "smollm2": Family(
        "chatml",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>"),
        CHATML,
        first=True,
        config={"tokenizer_class": "GPT2Tokenizer", "pad_token": "<|im_end|>"},
    ),
    "llama3": Family(
        "llama3",
        (
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
        LLAMA3,
        config={"bos_token": "<|begin_of_text|>"},
    ),
    "phi3": Family(
        "phi3",
        ("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"),
        PHI3,
        rstrip=True,
        config={"pad_token": {"content": "<|endoftext|>"}},
    ),
    "phi4": Family(
        "phi4", ("<|endoftext|>", "<|dummy_0|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"), PHI4
    ),
    "gemma": Family(
        "gemma",
        ("<pad>", "<eos>", "<bos>", "<unk>", "<unused0>", "<start_of_turn>", "<end_of_turn>"),
        GEMMA,
        first=True,
        config={"bos_token": "<bos>", "pad_token": "<pad>"},
    ),
    "opt": Family(
        "plain",
        ("<s>", "<pad>", "</s>", "<unk>"),
        "{{ '</s>' }}{% for m in messages %}{{ m['content'] + ('</s>' if m['role'] == 'assistant'"
        " else '\n') }}{% endfor %}",
        first=True,
        config={"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"},
    ),
}
_SENTENCEPIECE = ("phi3", "gemma")


def _byte_level(engine: tk.Tokenizer, name: str) -> None:
    """Normalizer, word splitting and decoder of the byte-level families."""
    level = pre_tokenizers.ByteLevel
    patterns = {
        "qwen2": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}",
        "llama3": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
        "phi4": rf"{WORDS}|\p{{N}}{{1,3}}|{REST}",
    }
    if name in patterns:
        split = pre_tokenizers.Split(tk.Regex(patterns[name]), "isolated")
        steps = [split, level(add_prefix_space=False, use_regex=False)]
    elif name == "smollm2":
        steps = [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]
    else:
        steps = [level(add_prefix_space=False)]
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    engine.decoder = decoders.ByteLevel()
    if name == "qwen2":
        engine.normalizer = normalizers.NFC()


def _sentencepiece(engine: tk.Tokenizer, name: str) -> None:
    """Blanks as visible characters, bytes for what the vocabulary lacks."""
    blank = normalizers.Replace(" ", "▁")
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if name == "phi3":
        engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blank])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        engine.normalizer = blank
        engine.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    engine.decoder = decoders.Sequence(steps)


def build(name: str) -> tk.Tokenizer:
    """A trained tokenizer of a family, with its control tokens."""
    family = FAMILIES[name]
    fallback = name in _SENTENCEPIECE
    unknown = "<unk>" if fallback else None
    engine = tk.Tokenizer(models.BPE(byte_fallback=fallback, fuse_unk=fallback, unk_token=unknown))
    (_sentencepiece if fallback else _byte_level)(engine, name)
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    front = list(family.special) if family.first else []
    trainer = trainers.BpeTrainer(
        vocab_size=700 if fallback else 420,
        special_tokens=[*front, *(["<unk>"] if name == "phi3" else []), *(bytes_ * fallback)],
        initial_alphabet=[] if fallback else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(CORPUS, trainer)
    data = json.loads(engine.to_str())
    if fallback:  # bytes are pieces of the vocabulary, no tokens of their own
        data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in bytes_]
    engine = tk.Tokenizer.from_str(json.dumps(data))
    engine.add_special_tokens(
        [tk.AddedToken(t, rstrip=family.rstrip, normalized=False) for t in family.special]
    )
    if name == "gemma":  # runs of line breaks are tokens of their own there, but no control tokens
        engine.add_tokens([tk.AddedToken("\n\n", normalized=False)])
    if name == "llama3":
        begin = engine.token_to_id("<|begin_of_text|>")
        engine.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
        )
    return engine


def save(name: str, engine: tk.Tokenizer, folder: Path) -> Path:
    """A folder with `tokenizer.json` and `tokenizer_config.json`."""
    engine.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(FAMILIES[name].config))
    return folder


def save_parts(name: str, engine: tk.Tokenizer, folder: Path) -> Path:
    """The same in the older files: `vocab.json`, `merges.txt`, tokens in the config."""
    data = json.loads(engine.to_str())
    added = {t["content"]: t for t in data["added_tokens"]}
    tail = {} if FAMILIES[name].first else added
    vocabulary = {k: v for k, v in data["model"]["vocab"].items() if k not in tail}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added.values()}
    config = {**FAMILIES[name].config, "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
