"""`--target-mb`: the mildest recipe whose file is small enough.

The ladder, mildest first: float32; float16; int8; half of the ConvFFNs' channels pruned and int8;
then ever more channels of every kind pruned and int8. The size of a rung does not depend on what
training will do, so it is measured on the untrained network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.compression.optimization.recipe_parts import Export, Prune, Quantize, Training
from dl_techniques.errors import CompressionError

if TYPE_CHECKING:
    import keras

MEGABYTE = 1_000_000
WHOLE = ("width", "hidden")


def ladder(base: Recipe, prunable: bool) -> Iterator[Recipe]:
    """The recipes in the order of what they may cost in accuracy.

    Args:
        base: gives `export` and `training`.
        prunable: whether channels can be dropped and trained for.
    """
    yield base
    for precision in ("float16", "int8"):
        yield replace(base, quantize=Quantize(precision))
    if not prunable:
        return
    for fraction, targets in ((0.5, ("hidden",)), (0.25, WHOLE), (0.5, WHOLE), (0.75, WHOLE)):
        yield replace(base, prune=Prune(fraction, targets), quantize=Quantize("int8"))


def describe(recipe: Recipe) -> str:
    """A rung in words."""
    if recipe.prune is None:
        return recipe.precision
    kinds = " and ".join(recipe.prune.targets)
    return f"{100 * recipe.prune.fraction:g} % of {kinds} channels pruned, {recipe.precision}"


def recipe_for_size(
    source: Any,
    megabytes: float,
    *,
    export: Export | None = None,
    training: Training | None = None,
    trainable: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Recipe:
    """The first rung of the ladder that fits.

    Args:
        source: a classifier or a FastVLMCausalLM, or a preset or file of one.
        megabytes: of 10^6 bytes, the most that the file (or all files of a folder) may take.
        export: format and picture size.
        training: for the rungs that prune.
        trainable: whether there are pictures to train on, without which nothing is pruned.
        say: called with a line for each rung.

    Raises:
        CompressionError: no rung is small enough; the smallest is named.

    Example:
        >>> recipe_for_size("tiny.keras", 0.6)  # doctest: +SKIP
    """
    from dl_techniques.loading.source import load
    from dl_techniques.models.picture_network import StagedNetwork

    model = load(source) if isinstance(source, (str, Path)) else source
    base = Recipe(export=export or Export(), training=training or Training())
    smallest = float("inf")
    for recipe in ladder(base, trainable and isinstance(model, StagedNetwork)):
        size = _size(model, recipe)
        if size is None:
            continue
        smallest = min(smallest, size / MEGABYTE)
        say(f"{describe(recipe)}: {size / MEGABYTE:.2f} MB")
        if size <= megabytes * MEGABYTE:
            return recipe
    hint = "" if trainable else "; with --data it could be pruned too"
    raise CompressionError(
        f"{megabytes:g} MB cannot be reached: the smallest that these steps give is "
        f"{smallest:.2f} MB{hint}; write a recipe with stronger steps, or start from a smaller "
        "network"
    )


def _size(model: keras.Model, recipe: Recipe) -> int | None:
    """Bytes that a rung takes; None where it does not exist for this model."""
    from dl_techniques.models.picture_network import picture_network

    if "vlm" in picture_network(model).parts():
        return _vlm_size(model, recipe)
    from dl_techniques.compression.channel_pruning import prune_channels
    from dl_techniques.compression.optimization.classifier_files import Files, check_classifier

    check_classifier(model, recipe)
    network = model
    if recipe.prune is not None:
        try:
            network = prune_channels(model, recipe.prune.fraction, targets=recipe.prune.targets)
        except CompressionError:
            return None  # so small a part of so few channels is no whole channel
    return Files(model, replace(recipe, prune=None), None).size(network)


def _vlm_size(model: keras.Model, recipe: Recipe) -> int | None:
    from dl_techniques.compression.optimization.optimizing_vlm import (
        export,
        size_of,
        temporary_target,
    )
    from dl_techniques.export.formats import format_of

    if recipe.precision not in format_of(recipe.export.format).precisions:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = temporary_target(folder, recipe)
        return size_of(export(model, target, recipe, recipe.precision))
