"""The marks that families of language models put around the turns of a conversation.

| template | for | control tokens |
|---|---|---|
| `fastvlm` | Apple's FastVLM, the default | ChatML |
| `chatml` | Qwen2, Qwen2.5, Qwen3, SmolLM2 | `<|im_start|>` `<|im_end|>` |
| `llama3` | Llama 3 | `<|start_header_id|>` `<|end_header_id|>` `<|eot_id|>` |
| `phi3` | Phi-3, Phi-3.5 | `<|user|>` `<|assistant|>` `<|end|>` |
| `phi4` | Phi-4 | `<|im_start|>` `<|im_sep|>` `<|im_end|>` |
| `gemma` | Gemma 3 | `<start_of_turn>` `<end_of_turn>` |
| `plain` | OPT and other models that know no turns | `</s>` |

A mark is a piece of text, or a control token, written `Control(...)`. `{role}` stands for the name
of the role in the family.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dl_techniques.errors import PromptError


class Control(str):
    """A control token, as opposed to text that spells one."""


@dataclass(frozen=True)
class ChatTemplate:
    """How one family marks turns.

    Args:
        name: key of `TEMPLATES`.
        head: marks in front of a turn's text.
        tail: marks behind it.
        begin: control token in front of the conversation.
        roles: names of the roles where they differ from ours.
        system_in_user: the system text stands in front of the first user text instead.
        trim: texts lose the white space around them.
        end: control token that ends an answer; it is learned in training.
        second_end: another one that ends an answer.
    """

    name: str
    head: Sequence[str] = ()
    tail: Sequence[str] = ()
    begin: Control | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    system_in_user: bool = False
    trim: bool = False
    end: Control = Control("<|im_end|>")
    second_end: Control = Control("<|endoftext|>")

    def marks(self, part: Sequence[str], role: str) -> list[str]:
        """Marks of one turn with the role's name filled in."""
        name = self.roles.get(role, role)
        return [m if isinstance(m, Control) else m.replace("{role}", name) for m in part]

    def opening(self, role: str) -> list[str]:
        """Marks in front of a turn's text."""
        return self.marks(self.head, role)

    def closing(self, role: str) -> list[str]:
        """Marks behind a turn's text."""
        return self.marks(self.tail, role)


_START, _END = Control("<|im_start|>"), Control("<|im_end|>")


def _chatml(name: str) -> ChatTemplate:
    return ChatTemplate(name, head=(_START, "{role}\n"), tail=(_END, "\n"))


@dataclass(frozen=True)
class _Plain(ChatTemplate):
    """A line a turn; only an answer has an end of its own."""

    def closing(self, role: str) -> list[str]:
        return [self.end] if role == "assistant" else ["\n"]


@dataclass(frozen=True)
class _Phi3(ChatTemplate):
    """Control tokens named after the roles.

    The published template has a line break behind each of them, and its tokenizer swallows it.
    """

    def opening(self, role: str) -> list[str]:
        return [Control(f"<|{role}|>")]


TEMPLATES: dict[str, ChatTemplate] = {
    template.name: template
    for template in (
        _chatml("fastvlm"),
        _chatml("chatml"),
        ChatTemplate(
            "llama3",
            head=(Control("<|start_header_id|>"), "{role}", Control("<|end_header_id|>"), "\n\n"),
            tail=(Control("<|eot_id|>"),),
            begin=Control("<|begin_of_text|>"),
            trim=True,
            end=Control("<|eot_id|>"),
            second_end=Control("<|end_of_text|>"),
        ),
        _Phi3("phi3", tail=(Control("<|end|>"),), end=Control("<|end|>")),
        ChatTemplate("phi4", head=(_START, "{role}", Control("<|im_sep|>")), tail=(_END,)),
        ChatTemplate(
            "gemma",
            head=(Control("<start_of_turn>"), "{role}\n"),
            tail=(Control("<end_of_turn>"), "\n"),
            begin=Control("<bos>"),
            roles={"assistant": "model"},
            system_in_user=True,
            trim=True,
            end=Control("<end_of_turn>"),
            second_end=Control("<eos>"),
        ),
        _Plain("plain", begin=Control("</s>"), end=Control("</s>"), second_end=Control("</s>")),
    )
}

# In this order: Phi-4 has ChatML's tokens as well.
_SIGNS = {
    "llama3": "<|start_header_id|>",
    "phi4": "<|im_sep|>",
    "gemma": "<start_of_turn>",
    "chatml": "<|im_start|>",
    "phi3": "<|assistant|>",
    "plain": "</s>",
}


def template_of(vocabulary: Collection[str]) -> str:
    """The template that belongs to a vocabulary, told by its control tokens.

    Raises:
        PromptError: none of the known ones is there.
    """
    for name, sign in _SIGNS.items():
        if sign in vocabulary:
            return name
    raise PromptError(
        f"the vocabulary has none of the control tokens {sorted(_SIGNS.values())}, so its chat "
        f"template is unknown; name one of {list(TEMPLATES)}"
    )


def get_template(name: str | ChatTemplate) -> ChatTemplate:
    """A template by name.

    Raises:
        PromptError: unknown; the nearest name is given.
    """
    if isinstance(name, ChatTemplate):
        return name
    if name not in TEMPLATES:
        near = difflib.get_close_matches(name, TEMPLATES, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PromptError(f"no chat template {name!r}: {hint}use one of {list(TEMPLATES)}")
    return TEMPLATES[name]
