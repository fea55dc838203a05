"""A weight file to a network: recognised, compared with its tables, then filled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.tensor_files import (
    INDEXES,
    PICKLES,
    SAFETENSORS,
    TensorStore,
    open_tensors,
)
from dl_techniques.checkpoints.vision.efficientnet_lite import HEADS, NAME, efficientnet_lite_rules
from dl_techniques.checkpoints.vision.layouts import COUNTERS, DISTILLED, Layout, recognise
from dl_techniques.checkpoints.vision.numbers import variant_of
from dl_techniques.checkpoints.vision.sources import config_beside, preprocessing_of, timm_name
from dl_techniques.checkpoints.vision.tables import (
    fast_vit_rules,
    mobile_one_rules,
    relative_paths,
)
from dl_techniques.checkpoints.weight_map import (
    AS_IS,
    Entry,
    WeightMap,
    build_map,
    check_coverage,
    load_weights,
)
from dl_techniques.data.damage import short
from dl_techniques.errors import CheckpointError, VariantError
from dl_techniques.layers.reparameterization import sync_variables
from dl_techniques.models.vision.efficientnet_lite import model as efficientnet_lite
from dl_techniques.models.vision.efficientnet_lite.model import EfficientNetLite
from dl_techniques.models.vision.fast_vlm import model as fast_vlm
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one import model as mobile_one
from dl_techniques.models.vision.mobile_one.model import MobileOne
from dl_techniques.runtime.lazy_build import without_values

NETWORKS: dict[str, Any] = {"fast_vit": fast_vlm, "mobile_one": mobile_one, NAME: efficientnet_lite}
CLASSES: dict[str, type] = {"fast_vit": FastVLM, "mobile_one": MobileOne, NAME: EfficientNetLite}
FREE = (
    "include_top", "num_classes", "input_shape", "classifier_activation", "preprocessing",
    "dropout_rate", "drop_path_rate", "layer_scale_init", "name", "dtype",
    "include_preprocessing",
)  # fmt: skip
"""Arguments that a weight file does not settle."""
PROJECTION = "head.proj"
"""CLIP's projection: a matrix from features, without bias."""


def recognises(cls: type, source: Path, variant: str | None) -> bool:
    """Whether this reader makes networks of `cls` from `source`: a weight file or its folder."""
    if not issubclass(cls, tuple(CLASSES.values())):
        return False
    if source.is_dir():
        return any(_is_weights(path) for path in source.iterdir())
    return source.is_file() and _is_weights(source)


def _is_weights(path: Path) -> bool:
    return path.suffix in (*SAFETENSORS, *PICKLES) or path.name in INDEXES


def load(cls: type, source: Path, variant: str | None, overrides: dict[str, Any]) -> Any:
    """Builds the network that a file holds, in the form that it has, and fills it.

    Args:
        cls: `FastVLM`, `MobileOne` or `EfficientNetLite`.
        source: file or folder.
        variant: which network it must be; `None` for what the tensors say.
        overrides: constructor arguments among `FREE`.

    Raises:
        CheckpointError: damaged, of an unknown layout, or not this class's network.
        VariantError: an unknown variant or argument.
    """
    _check_overrides(cls, overrides)
    with open_tensors(source) as store:
        layout = recognise(store, source)
        try:
            return _load(cls, store, layout, config_beside(source), variant, overrides)
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from error


def _load(
    cls: type,
    store: TensorStore,
    layout: Layout,
    config: Mapping[str, Any],
    variant: str | None,
    overrides: dict[str, Any],
) -> Any:
    _check_class(cls, layout)
    shapes = layout.own(store)
    name = variant_of(layout, shapes, variant)
    _check_architecture(name, config)
    defaults = NETWORKS[layout.naming.network].variant_arguments(name)
    pixels = preprocessing_of(defaults["preprocessing"], name, layout.source, config)
    head = _head(layout, shapes, overrides)
    arguments = defaults | {"preprocessing": pixels, "reparameterized": layout.fused}
    with without_values() as unfilled:
        network = cls(**{**arguments, **overrides, **head})
    entries = network_map(network, layout.naming.words)
    ignored = [COUNTERS, *_unused_heads(layout, head)]
    if head["include_top"] and PROJECTION in shapes:
        _use_projection(entries, layout)
    check_coverage(store, entries, ignored, layout.prefix)
    unfilled.fill_rest(of=network, but={id(entry.variable) for entry in entries.values()})
    by_size = dict(sorted(entries.items(), key=lambda i: -store[layout.prefix + i[0]].nbytes))
    load_weights(store, by_size, layout.prefix)
    sync_variables(network)
    return network


def network_map(network: FastVLM | MobileOne | EfficientNetLite, words: str) -> WeightMap:
    """Names in a file -> the network's variables, in whatever form it stands.

    Args:
        network: of any kind.
        words: "timm", "apple" or "pytorch".

    Raises:
        CheckpointError: the network is folded (an EfficientNet-Lite: fused), or its attention has
            biases that were trained when it was, which no other layout knows.
    """
    if any(switch.form_word() == "biased" for _, switch in network.switches()):
        raise CheckpointError(
            f"{network.name} was trained while it was folded, and its qkv keep biases that no "
            "layout of timm's or Apple's has names for: use save_to_preset()"
        )
    if any(switch.is_fold and switch.inference_form for _, switch in network.switches()):
        raise CheckpointError(
            f"{network.name} is folded, which no layout of timm's or Apple's has names for: call "
            "reset_reparameterization(), then reparameterize() without fold"
        )
    if isinstance(network, EfficientNetLite):
        if any(network.form_state().values()):
            raise CheckpointError(
                f"{network.name} is fused, which no layout of an EfficientNet-Lite has names for: "
                "call reset_reparameterization() before"
            )
        rules = efficientnet_lite_rules(network.config, words)
        return build_map(relative_paths(network), *rules)
    if isinstance(network, MobileOne):
        return build_map(relative_paths(network), *mobile_one_rules(words))
    return build_map(relative_paths(network), fast_vit_rules(network.config, words))


def _check_overrides(cls: type, overrides: Mapping[str, Any]) -> None:
    for key in overrides:
        if key not in FREE:
            raise VariantError(
                f"{cls.__name__}.from_preset: {key!r} is settled by the weight file or unknown; "
                f"may be given: {', '.join(FREE)}"
            )


def _check_class(cls: type, layout: Layout) -> None:
    wanted = CLASSES[layout.naming.network]
    if not issubclass(cls, wanted):
        raise CheckpointError(
            f"holds a network of {layout}, expected a {cls.__name__}; use "
            f"{wanted.__name__}.from_preset"
        )


def _check_architecture(variant: str, config: Mapping[str, Any]) -> None:
    """timm's folders say what they hold."""
    said = config.get("architecture")
    if isinstance(said, str) and said.split(".")[0] != timm_name(variant):
        raise CheckpointError(
            f"config.json says {short(said)}, but the tensors are of {timm_name(variant)!r}; the "
            "two do not belong together"
        )


def head_name(layout: Layout) -> str:
    """What a layout calls the classifier."""
    if layout.naming.network == NAME:
        return HEADS[layout.naming.words]
    if layout.naming.words == "timm":
        return "head.fc"
    return "linear" if layout.naming.network == "mobile_one" else "head"


def _head(
    layout: Layout, shapes: Mapping[str, tuple[int, ...]], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """`include_top` and `num_classes`: the file's, unless the caller wants no classifier."""
    weight = shapes.get(f"{head_name(layout)}.weight")
    classes = weight[0] if weight else shapes.get(PROJECTION, (0, 0))[1]
    is_tower = layout.source == "fastvlm"
    wanted = overrides.get("include_top", bool(classes) and not is_tower)
    if not wanted or overrides.get("num_classes") == 0:
        return {"include_top": bool(wanted), "num_classes": 0 if wanted else _width(overrides)}
    if not classes:
        raise CheckpointError("holds no classifier; load it with include_top=False")
    if overrides.get("num_classes", classes) != classes:
        raise CheckpointError(
            f"has a classifier of {classes} classes, not {overrides['num_classes']}; leave "
            "num_classes out, or load it with include_top=False and put your own on top"
        )
    if any(name.startswith(("head_dist.", "dist_head.")) for name in shapes):
        raise CheckpointError(
            "holds a second classifier, left from training by distillation, and which of the two "
            "answers is not in the file; load it with include_top=False"
        )
    return {"include_top": True, "num_classes": classes}


def _width(overrides: Mapping[str, Any]) -> int:
    """A network without classifier keeps the number for its config alone."""
    return int(overrides.get("num_classes", 0))


def _unused_heads(layout: Layout, head: Mapping[str, Any]) -> list[str]:
    if head["include_top"] and head["num_classes"]:
        return []
    own = head_name(layout).replace(".", r"\.")
    return [rf"{own}\.(weight|bias)", r"head\.proj", *DISTILLED]


def _use_projection(entries: WeightMap, layout: Layout) -> None:
    """CLIP's projection is the classifier's kernel as it stands; the bias keeps its zeros."""
    name = head_name(layout)
    if f"{name}.weight" in entries:
        kernel = entries.pop(f"{name}.weight")
        entries.pop(f"{name}.bias")
        entries[PROJECTION] = Entry(kernel.path, kernel.variable, AS_IS)
