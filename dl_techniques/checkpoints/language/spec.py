"""Hugging Face text configs as KerasHub decoders: the family, and the arguments of its backbone.

Every field that changes a number is carried over or refused with the reason; none is dropped.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras_hub

from dl_techniques.checkpoints.language import families
from dl_techniques.checkpoints.language.config_fields import Config, flag, needed
from dl_techniques.data.damage import one_line, short
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.network.corrected import (
    Gemma3Decoder,
    Llama3Decoder,
    Qwen3Decoder,
)

Kwargs = families.Kwargs


@dataclass(frozen=True)
class DecoderSpec:
    """A text decoder: which of KerasHub's backbones, and with which numbers.

    Args:
        family: a key of `FAMILIES`.
        kwargs: arguments of the backbone.
        tied: whether logits come from the embedding table.
    """

    family: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = True

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table."""
        return int(self.kwargs["vocabulary_size"])

    @property
    def hidden_dim(self) -> int:
        """Width of the embeddings."""
        return int(self.kwargs["hidden_dim"])

    def with_tied(self, tied: bool) -> DecoderSpec:
        """The same decoder with tied or untied logits, as the weight file has it.

        Raises:
            CheckpointError: KerasHub's backbone of the family has no such form.
        """
        choices = FAMILIES[self.family].ties
        if tied not in choices:
            wanted, only = ("tied", "untied") if tied else ("untied", "tied")
            raise CheckpointError(
                f"{self.family} with {wanted} logits is not supported: keras_hub's "
                f"{FAMILIES[self.family].backbone.__name__} is always {only}"
            )
        kwargs = dict(self.kwargs)
        if len(choices) == 2:
            kwargs["tie_word_embeddings"] = tied
        return replace(self, kwargs=kwargs, tied=tied)


@dataclass(frozen=True)
class Family:
    """What is known of a family of decoders.

    Args:
        backbone: the KerasHub class.
        read: text config -> arguments of the backbone.
        ties: forms of the logits that the class has; the first is the config's default.
    """

    backbone: type
    read: Callable[[Config], Kwargs]
    ties: tuple[bool, ...]


_M = keras_hub.models
_QWEN2 = Family(_M.QwenBackbone, families.qwen2, (False, True))
FAMILIES: dict[str, Family] = {
    "qwen2": _QWEN2,
    "llava_qwen2": _QWEN2,
    "qwen3": Family(Qwen3Decoder, families.qwen3, (False, True)),
    "llama": Family(Llama3Decoder, families.llama, (False, True)),
    "phi3": Family(_M.Phi3Backbone, families.phi3, (False,)),
    "opt": Family(_M.OPTBackbone, families.opt, (True,)),
    "gemma3_text": Family(Gemma3Decoder, families.gemma3, (True,)),
}


def decoder_config(config: Config) -> DecoderSpec:
    """Reads a Hugging Face text config.

    Args:
        config: the content of `config.json` (or its `text_config`), with `model_type` one of
            `FAMILIES`.

    Returns:
        Family and arguments. Whether logits are tied is the config's word; the weight file has
        the last one (`DecoderSpec.with_tied`).

    Raises:
        CheckpointError: an unknown family, a field that is missing, or one whose value KerasHub's
            decoder cannot express.

    Example:
        >>> spec = decoder_config({
        ...     "model_type": "llama", "vocab_size": 64, "num_hidden_layers": 1, "hidden_size": 8,
        ...     "num_attention_heads": 2, "intermediate_size": 16, "rms_norm_eps": 1e-5})
        >>> spec.family, spec.kwargs["layer_norm_epsilon"], spec.tied
        ('llama', 1e-05, False)
    """
    kind = str(needed(config, "model_type"))
    if kind not in FAMILIES:
        near = difflib.get_close_matches(kind, FAMILIES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CheckpointError(
            f"model_type {short(kind)} is no known text decoder: expected one of "
            f"{list(FAMILIES)}{hint}"
        )
    family = FAMILIES[kind]
    name = "qwen2" if kind == "llava_qwen2" else kind
    spec = DecoderSpec(name, family.read(config))
    unsaid = config.get("tie_word_embeddings") is None
    return spec.with_tied(family.ties[0] if unsaid else flag(config, "tie_word_embeddings"))


def check_layers(spec: DecoderSpec, names: Collection[str], body: str) -> None:
    """Refuses more layers than a weight file has arrays, before any is built.

    What is smaller and wrong is told array by array once the network is there.

    Args:
        spec: of the config.
        names: of the arrays.
        body: what stands in front of them.

    Raises:
        CheckpointError: the file cannot hold them.
    """
    layer = re.compile(re.escape(body) + r"layers\.(\d+)\.")
    found = {int(match[1]) for name in names if (match := layer.match(name))}
    said = spec.kwargs["num_layers"]
    if found and said > len(names):
        raise CheckpointError(
            f"num_hidden_layers is {said}, but the weights have {max(found) + 1} layers; the files "
            "do not belong together"
        )


def build_decoder(spec: DecoderSpec, dtype: Any = None, **overrides: Any) -> Any:
    """Builds the KerasHub backbone of a spec, with random weights.

    Args:
        spec: from `decoder_config`.
        dtype: of its layers, e.g. `"bfloat16"`.
        **overrides: arguments of the backbone that replace the spec's.

    Raises:
        CheckpointError: an argument that the backbone does not have.
    """
    backbone = FAMILIES[spec.family].backbone
    kwargs = {**spec.kwargs, **overrides}
    # The backbones take any keyword and forget it: a misspelt one would change nothing.
    names = _arguments(backbone)
    unknown = sorted(set(kwargs) - names)
    if unknown:
        raise CheckpointError(f"{backbone.__name__} has no {unknown}; it has {sorted(names)}")
    try:
        return backbone(**kwargs, dtype=dtype)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{spec.family} cannot be built with these numbers ({one_line(error)}); check the "
            "config"
        ) from error


def _arguments(backbone: type) -> set[str]:
    """Names of the arguments of a KerasHub backbone, or of the one it derives from."""
    found = {"name", "trainable"}
    for kind in backbone.__mro__:
        parameters = inspect.signature(kind).parameters
        found |= {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
        if kind.__module__.startswith("keras_hub."):
            break
    return found - {"dtype", "args"}
