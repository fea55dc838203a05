"""Which layout a file has: whose names, under which prefix, in which form; and which not quite."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dl_techniques.checkpoints.vision.efficientnet_lite import NAME, efficientnet_lite_rules
from dl_techniques.checkpoints.vision.tables import fast_vit_rules, mobile_one_rules
from dl_techniques.checkpoints.weight_map import Rule
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vision.efficientnet_lite.config import EfficientNetLiteConfig
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig

SHOWN = 5
COUNTERS = r"(.*\.)?num_batches_tracked"
"""Counters of torch's BatchNorms, which nobody needs; they may stay unused."""


@dataclass(frozen=True)
class Naming:
    """One family's names for one kind of network.

    Args:
        name: for messages.
        network: "fast_vit", "mobile_one" or "efficientnet_lite".
        words: "timm", "apple" or "pytorch".
        stem: how the name of the stem's first array begins, and no other layout's.
    """

    name: str
    network: str
    words: str
    stem: str

    def knows(self, name: str) -> bool:
        """Whether the tables have a name of this shape (with whatever numbers in it)."""
        return _known_names(self.network, self.words).fullmatch(name) is not None


NAMINGS = (
    Naming("timm FastViT", "fast_vit", "timm", r"stem\.0\."),
    Naming("Apple FastViT", "fast_vit", "apple", r"patch_embed\.0\."),
    Naming("timm MobileOne", "mobile_one", "timm", r"stem\.(conv_kxk|conv_scale|reparam_conv)\."),
    Naming("Apple MobileOne", "mobile_one", "apple", r"stage0\."),
    Naming("timm EfficientNet-Lite", NAME, "timm", r"conv_stem\."),
    Naming("EfficientNet-PyTorch", NAME, "pytorch", r"_conv_stem\."),
)

PREFIXES = {
    "": "",
    "model.vision_tower.vision_tower.model.": "fastvlm",
    "model.vision_tower.timm_model.": "fastvlm",
    "image_encoder.model.": "apple_mobileclip",
    "visual.trunk.": "mclip2_dfndr2b",
    "timm_model.": "",
    "model.": "",
}
"""Where the network stands in a larger model -> what its weights were made for."""
WRAPPERS = ("", "module.")
"""In front of everything: what torch's data-parallel wrapper adds."""


@dataclass(frozen=True)
class Layout:
    """What a file's names say.

    Args:
        naming: whose names.
        prefix: in front of every name of the network.
        source: what the weights were made for, as far as the prefix tells.
        fused: whether the branches are already one.
    """

    naming: Naming
    prefix: str
    source: str
    fused: bool

    def own(self, store: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Name without prefix -> shape, counters left out."""
        return {
            name.removeprefix(self.prefix): tuple(info.shape)
            for name, info in store.items()
            if name.startswith(self.prefix) and not re.fullmatch(COUNTERS, name)
        }

    def __str__(self) -> str:
        """For messages."""
        form = "fused" if self.fused else "training form"
        return f"{self.naming.name}, {form}" + (f", under {self.prefix!r}" if self.prefix else "")


def recognise(store: Mapping[str, Any], source: Any = "the file") -> Layout:
    """The layout of a file.

    Args:
        store: name -> something with a `shape`.
        source: what to call the file in messages.

    Raises:
        CheckpointError: none fits; the nearest one and the first names it does not know are shown.
    """
    for layout in _candidates(store):
        stem = re.compile(re.escape(layout.prefix) + layout.naming.stem)
        if any(stem.match(name) for name in store):
            return layout
    raise CheckpointError(f"{source}: {_nearest(store)}")


def _candidates(names: Iterable[str]) -> Iterable[Layout]:
    fused = any(re.search(r"(reparam_conv|lkb_reparam)\.weight$", name) for name in names)
    for prefix, made_for in PREFIXES.items():
        for wrapper in WRAPPERS:
            for naming in NAMINGS:
                yield Layout(naming, wrapper + prefix, made_for, fused)


def _nearest(store: Mapping[str, Any]) -> str:
    """What is wrong, seen from the layout that knows most of the names."""
    names = [name for name in store if not re.fullmatch(COUNTERS, name)]
    if not names:
        return "holds no weights; give the file of a vision network"

    def strangers(layout: Layout) -> list[str]:
        known = layout.naming.knows
        prefix = layout.prefix
        return [n for n in names if not (n.startswith(prefix) and known(n.removeprefix(prefix)))]

    layouts = list(_candidates(store))
    nearest = min(layouts, key=lambda layout: len(strangers(layout)))
    foreign = strangers(nearest)
    fitting = len(names) - len(foreign)
    if not foreign:
        wanted = nearest.naming.stem.replace("\\", "")
        return f"nearest layout: {nearest}; but the stem ({wanted}...) is missing, it is not whole"
    return (
        f"no layout of a vision network that is known here; the nearest is {nearest}, which "
        f"knows {fitting} of {len(names)} names and not {', '.join(foreign[:SHOWN])}"
        + (f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else "")
    )


@functools.cache
def _known_names(network: str, words: str) -> re.Pattern[str]:
    """One expression for all names of a layout, whatever the sizes."""
    if network == "mobile_one":
        rules = mobile_one_rules(words)[0]
    elif network == NAME:
        rules = efficientnet_lite_rules(EfficientNetLiteConfig(), words)[0]
    else:
        both = [FastVLMConfig(mixers=(kind,) * 3) for kind in ("repmixer", "attention")]
        rules = [rule for config in both for rule in fast_vit_rules(config, words)]
    sources = {_expression(rule) for rule in rules} | {r"head\.proj", *DISTILLED}
    return re.compile("|".join(sorted(sources)))


DISTILLED = (r"head_dist\.\w+", r"dist_head\.\w+")
"""Names of the second classifier that training by distillation adds."""


def _expression(rule: Rule) -> str:
    text = re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(rule.source))
    return re.sub(r"(?<=stages\\\.)\d+|(?<=network\\\.)\d+|(?<=blocks\\\.)\d+", r"\\d+", text)
