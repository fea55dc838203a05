"""Structured pruning: a smaller FastVLM that keeps the channels that matter, with their weights.

The result is an ordinary network with an ordinary config: it trains, saves, fuses and exports as
any other, and is faster everywhere, because its matrices are smaller and not merely full of zeros.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from dl_techniques.compression.channel_importance import Scores, channel_importance
from dl_techniques.compression.channel_map import Bound, channel_axes, shortcuts
from dl_techniques.errors import CompressionError
from dl_techniques.layers.fusion import Array, as_float64, batch_norm_affine
from dl_techniques.layers.quantized.base import refuse_quantized
from dl_techniques.models.vision.fast_vlm.model import FastVLM

TARGETS = ("width", "hidden")
Kept = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class ChannelCounts:
    """How many channels of each kind every stage has.

    Args:
        widths: of the residual stream.
        hidden: between the two dense layers of the ConvFFNs.
        head_dims: of one attention head; 0 where a stage has none.
    """

    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    head_dims: tuple[int, ...]

    @classmethod
    def of(cls, model: FastVLM) -> ChannelCounts:
        """The numbers of a network."""
        config = model.config
        return cls(
            config.embed_dims,
            tuple(stage.blocks[0].conv_ffn.hidden_dim for stage in model.stages),
            tuple(
                dim // config.heads(i) if config.stage_mixers[i] == "attention" else 0
                for i, dim in enumerate(config.embed_dims)
            ),
        )

    def cut(
        self, fraction: float, targets: Collection[str] = TARGETS, divisor: int = 4
    ) -> ChannelCounts:
        """The numbers without `fraction` of the targets' channels, rounded up.

        The widths keep their ratios (a downsample is depthwise) and whole attention heads.
        """
        widths, hidden = self.widths, self.hidden
        if "width" in targets:
            least = math.lcm(divisor, *(self._step(i) for i in range(len(widths))))
            first = _rounded_up(widths[0] * (1 - fraction), least, widths[0])
            widths = tuple(first * width // widths[0] for width in widths)
        if "hidden" in targets:
            hidden = tuple(_rounded_up(h * (1 - fraction), divisor, h) for h in hidden)
        return ChannelCounts(widths, hidden, self.head_dims)

    def _step(self, stage: int) -> int:
        """What the first width must be a multiple of, so that this stage has whole heads."""
        head = self.head_dims[stage]
        return head // math.gcd(head, self.widths[stage] // self.widths[0]) if head else 1

    def arguments(self, num_heads: Sequence[int] | None) -> dict[str, Any]:
        """Constructor arguments of a network with these numbers.

        Args:
            num_heads: what they were; `None` (channels // 32) stays right.
        """
        pairs = zip(self.hidden, self.widths, strict=True)
        ratios = [_exact_ratio(hidden, width) for hidden, width in pairs]
        if num_heads is not None:
            stages = zip(self.widths, self.head_dims, num_heads, strict=True)
            num_heads = [w // head if head else before for w, head, before in stages]
        return {
            "embed_dims": list(self.widths),
            "num_heads": num_heads,
            "mlp_ratio": ratios[0] if len(set(ratios)) == 1 else ratios,
        }


def prune_channels(
    model: FastVLM,
    fraction: float = 0.5,
    *,
    targets: Collection[str] = TARGETS,
    importance: str = "l1",
    data: Any = None,
    loss: Any = None,
    divisor: int = 4,
) -> FastVLM:
    """A smaller network with the most important channels of a trained one.

    Fine-tune it afterwards; `prune_gradually` does both in steps.

    Args:
        model: trained; branched (to be fine-tuned) or fused. It stays as it is.
        fraction: part of the channels to drop, in (0, 1). At most so many go: numbers are rounded
            up to multiples of `divisor` and to whole attention heads.
        targets: "width" (the residual streams, stem and downsamples), "hidden" (inside the
            ConvFFNs), or both. Defaults to both.
        importance: "l1" or "taylor", see `channel_importance`.
        data: pictures and labels, for "taylor".
        loss: for "taylor". Defaults to cross-entropy.
        divisor: kept channels are a multiple of it. Defaults to 4.

    Returns:
        A new network in the form of the old one, without optimizer: compile it. Feature maps have
        fewer channels, in another order.

    Raises:
        CompressionError: a fraction, target or importance that cannot be, weights that are no
            FastVLM's, a quantized network, or nothing to drop.

    Example:
        >>> small = prune_channels(FastVLM.from_variant("tiny"), 0.5)
        >>> small.config.embed_dims, small.config.mlp_ratio
        ((16, 32, 64), 3.0)

    Reference: Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710.
    """
    check_request(fraction, targets, divisor)
    channel_axes(model)
    refuse_quantized(model)
    counts = ChannelCounts.of(model)
    wanted = counts.cut(fraction, targets, divisor)
    if wanted == counts:
        raise CompressionError(
            f"{model.name}: a fraction of {fraction:g} drops no channel of {list(counts.widths)} "
            f"(hidden {list(counts.hidden)}) at multiples of {divisor} and whole attention heads; "
            "raise it"
        )
    return keep_channels(model, wanted, channel_importance(model, importance, data, loss))


def check_request(fraction: float, targets: Collection[str], divisor: int = 1) -> None:
    """Refuses what no pruning can do.

    Raises:
        CompressionError: names the argument.
    """
    if not 0 < fraction < 1:
        raise CompressionError(f"fraction is {fraction}; expected a number between 0 and 1")
    if isinstance(targets, str) or not targets or set(targets) - set(TARGETS):
        raise CompressionError(f"targets are {targets!r}; use one or both of {TARGETS}")
    if divisor < 1:
        raise CompressionError(f"divisor is {divisor}; expected 1 or more")


def keep_channels(model: FastVLM, counts: ChannelCounts, scores: Scores) -> FastVLM:
    """The network with `counts` channels, those with the highest scores.

    Args:
        model: stays as it is.
        counts: at most what the model has.
        scores: of every set of `channel_map`, as `channel_importance` gives them.
    """
    config = model.get_config()
    smaller = type(model).from_config({**config, **counts.arguments(config["num_heads"])})
    old, new = channel_axes(model), channel_axes(smaller)
    kept = _choose(scores, _sizes(new), model)
    for before, after in zip(old, new, strict=True):
        after.variable.assign(_slice(before, kept).astype(after.variable.dtype))
    _cut_shortcuts(model, smaller, kept)
    return smaller


def _choose(scores: Mapping[str, Array], sizes: Mapping[str, int], model: FastVLM) -> Kept:
    """The old index of every new channel, for each set.

    The order inside a residual stream is free; it is such that identity branches keep as many
    channels as possible.
    """
    free = [k for k in scores if k.split("_")[0] in ("stem", "hidden", "attention", "squeeze")]
    kept = {label: _best(scores[label], sizes[label]) for label in free}
    stages = range(len(model.stages))
    source = "stem"
    for i in stages:
        if i:
            source = f"patch_{i}"
            kept[source] = _children(kept[f"width_{i - 1}"], sizes[source])
        best = _best(scores[f"width_{i}"], sizes[f"width_{i}"])
        kept[f"width_{i}"] = _aligned(best, kept[source])
    if "tail" in sizes:
        kept["tail"] = _children(kept[f"width_{stages[-1]}"], sizes["tail"])
    for label in [k for k in kept if k.startswith("attention_")]:
        total = len(scores[label])
        places = [part * total + kept[label] for part in range(3)]
        kept[label.replace("attention", "qkv")] = np.concatenate(places)
    return kept


def _best(scores: Array, count: int) -> Array:
    """Indices of the highest scores, ascending; of equal ones the first (so heads stay whole)."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _children(parents: Array, total: int) -> Array:
    """Outputs of a depthwise layer that has total / len(parents) of them for each channel."""
    multiplier = total // len(parents)
    return (parents[:, None] * multiplier + np.arange(multiplier)).ravel()


def _aligned(chosen: Array, source: Array) -> Array:
    """`chosen` reordered: a channel that is in `source` too takes its place there."""
    shared = set(chosen) & set(source)
    rest = iter([channel for channel in chosen if channel not in shared])
    return np.array([channel if channel in shared else next(rest) for channel in source])


def _sizes(bounds: list[Bound]) -> dict[str, int]:
    return {
        label: int(variable.shape[axis])
        for variable, axes in bounds
        for axis, label in enumerate(axes)
        if label is not None
    }


def _slice(bound: Bound, kept: Kept) -> Array:
    array = as_float64(bound.variable)
    for axis, label in enumerate(bound.axes):
        if label is not None:
            array = np.take(array, kept[label], axis=axis)
    return array


def _cut_shortcuts(model: FastVLM, smaller: FastVLM, kept: Kept) -> None:
    """Where a stream's channel lost its partner before the block, only its shift stays."""
    for old, new in zip(shortcuts(model), shortcuts(smaller), strict=True):
        source, target = kept[old.source], kept[old.target]
        lost = source != target
        shift = batch_norm_affine(old.norm)[1][target]
        values = {
            "gamma": np.where(lost, 0.0, as_float64(new.norm.gamma)),
            "beta": np.where(lost, shift, as_float64(new.norm.beta)),
            "moving_mean": as_float64(old.norm.moving_mean)[source],
            "moving_variance": as_float64(old.norm.moving_variance)[source],
        }
        for name, value in values.items():
            variable = getattr(new.norm, name)
            variable.assign(value.astype(variable.dtype))


def _rounded_up(wanted: float, multiple: int, most: int) -> int:
    """The next multiple, at least one and at most `most`."""
    return min(most, max(1, math.ceil(wanted / multiple - 1e-9)) * multiple)


def _exact_ratio(hidden: int, width: int) -> float:
    """The ratio whose product with the width, cut to an integer, is the hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
