"""Reading a Hugging Face text config: what is needed, what may be absent, what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dl_techniques.data.damage import of_kind, real_number, short, whole_number
from dl_techniques.errors import CheckpointError

Config = Mapping[str, Any]


def needed(config: Config, name: str) -> Any:
    """The value of a field that no default can replace.

    Raises:
        CheckpointError: it is absent or null.
    """
    value = config.get(name)
    if value is None:
        raise CheckpointError(
            f"the config of this {config.get('model_type', 'model')!s} has no {name!r}; "
            "its config.json is incomplete: download it again"
        )
    return value


def whole(config: Config, name: str, default: Any = None) -> int:
    """A size or count that must be there, unless there is a default.

    Raises:
        CheckpointError: absent, or no whole number of at least 1.
    """
    value = needed(config, name) if default is None else config.get(name, default)
    return whole_number(value, name)


def real(config: Config, name: str, default: Any = None) -> float:
    """A number that must be there, unless there is a default.

    Raises:
        CheckpointError: absent, negative, or no finite number.
    """
    value = needed(config, name) if default is None else config.get(name, default)
    return real_number(value, name)


def flag(config: Config, name: str) -> bool:
    """Whether a field says yes; absent or null is no.

    Raises:
        CheckpointError: it is neither true nor false.
    """
    value = config.get(name)
    return bool(value is not None and of_kind(value, bool, name))


def refuse_unless(fits: bool, config: Config, field: str, reason: str) -> None:
    """Refuses a field's value that the decoder has no counterpart for.

    Raises:
        CheckpointError: it does not fit.
    """
    if not fits:
        raise CheckpointError(
            f"{config.get('model_type')} with {field}={short(config.get(field))} is not supported: "
            f"{reason}"
        )


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a config.

    Args:
        theta: base of the wavelengths.
        kind: `default`, `linear`, `llama3`, `longrope`, ...
        values: all other fields of the scaling, as they stand in the config.
    """

    theta: float
    kind: str
    values: Mapping[str, Any]

    def needed(self, name: str) -> Any:
        """A field of the scaling that no default can replace."""
        if self.values.get(name) is None:
            raise CheckpointError(f"the rope scaling {self.kind!r} of the config has no {name!r}")
        return self.values[name]

    def real(self, name: str) -> float:
        """A number of the scaling that no default can replace."""
        return real_number(self.needed(name), f"{name} of the rope scaling")


def rope_of(config: Config, default_theta: float | None = None) -> Rope:
    """Rotary positions, in the older layout (`rope_theta`, `rope_scaling`) or transformers 5's
    (`rope_parameters`).

    Args:
        config: a text config.
        default_theta: base where the format allows its absence.

    Raises:
        CheckpointError: no base anywhere, or a rotation of only a part of each head.
    """
    field = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    values = dict(of_kind(config.get(field) or {}, dict, field))
    theta = values.pop("rope_theta", None) or config.get("rope_theta") or default_theta
    if theta is None:
        theta = needed(config, "rope_theta")
    kind = str(values.pop("rope_type", None) or values.pop("type", None) or "default")
    values.pop("type", None)
    partial = values.pop("partial_rotary_factor", None) or config.get("partial_rotary_factor")
    if partial not in (None, 1, 1.0):
        raise CheckpointError(
            f"partial_rotary_factor={short(partial)} is not supported: keras_hub's decoders rotate "
            "the whole of every head; use a model that does, such as Phi-3 or Phi-4 (14B)"
        )
    return Rope(real_number(theta, "rope_theta"), kind, values)


def refuse_scaling(rope: Rope, allowed: tuple[str, ...], family: str) -> None:
    """Refuses a rope scaling that the family's decoder cannot compute.

    Raises:
        CheckpointError: naming the scaling and what would work.
    """
    if rope.kind not in allowed:
        raise CheckpointError(
            f"rope scaling {short(rope.kind)} is not supported for {family}: keras_hub's decoder "
            f"knows {', '.join(allowed)}; long texts would silently be read wrong"
        )


def linear_factor(rope: Rope) -> float:
    """What positions are divided by."""
    return rope.real("factor") if rope.kind == "linear" else 1.0


def longrope_factor(rope: Rope, longest: int, pretrained: int) -> None:
    """Checks that a longrope's attention factor is the one keras_hub computes.

    Raises:
        CheckpointError: the config asks for another one.
    """
    given = rope.values.get("attention_factor")
    scale = longest / pretrained
    own = 1.0 if scale <= 1 else math.sqrt(1 + math.log(scale) / math.log(pretrained))
    if given is not None and abs(real_number(given, "attention_factor") - own) > 1e-6:
        raise CheckpointError(
            f"rope scaling attention_factor={given} is not supported: keras_hub computes {own:.6f} "
            "from max_position_embeddings"
        )
