"""Published FastVLM folders to models: checked against the network first, then filled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.fast_vlm.source import Source, read_source
from dl_techniques.checkpoints.language import build_decoder
from dl_techniques.checkpoints.tensor_files import TensorStore, open_tensors
from dl_techniques.checkpoints.weight_map import WeightMap, check_coverage, load_weights
from dl_techniques.data.damage import naming
from dl_techniques.layers.reparameterization import sync_variables
from dl_techniques.models.vision.arguments import refuse_float16
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.network.variants import build_backbone, tower_arguments
from dl_techniques.runtime.lazy_build import Unfilled, without_values

Progress = Callable[[int], None]


def build(source: Source, dtype: Any = None) -> FastVLMBackbone:
    """The network of a source.

    Raises:
        VariantError: float16, in which the tower overflows.
    """
    refuse_float16(dtype)
    decoder = build_decoder(source.decoder, dtype=dtype, name="text_backbone")
    tower = tower_arguments(source.tower, source.image_size, source.fused)
    return build_backbone(tower, decoder, dtype=dtype)


def read_and_check(
    store: TensorStore,
    folder: Path,
    image_size: int | None = None,
    dtype: Any = None,
    variant: str | None = None,
) -> tuple[Source, FastVLMBackbone, WeightMap, Unfilled]:
    """Reads the configs, builds the network without values, and compares it with the tensors.

    Raises:
        CheckpointError: fields or tensors are missing, unused or of another shape.
    """
    source = read_source(folder, {n: info.shape for n, info in store.items()}, image_size)
    if variant is not None:
        source.check_variant(variant)
    with without_values() as unfilled, naming(folder):
        backbone = build(source, dtype)
    with naming(folder):
        entries = source.layout.weight_map(backbone, source.decoder)
        check_coverage(store, entries, source.layout.ignored)
    return source, backbone, entries, unfilled


def load_backbone(
    folder: Path,
    dtype: Any = None,
    image_size: int | None = None,
    variant: str | None = None,
    load: bool = True,
    progress: Progress | None = None,
) -> tuple[FastVLMBackbone, Source]:
    """Builds and fills the network of a folder.

    One array is in memory beside the network: the largest come first, while the network is still
    small.

    Args:
        folder: in Apple's or Hugging Face's layout.
        dtype: policy of all layers. Defaults to Keras' global one (float32), whatever the file has.
        image_size: side of the pictures, pixels. Defaults to the folder's.
        variant: size that the folder must hold.
        load: `False` for random weights.
        progress: told the bytes of each array that was read.

    Raises:
        CheckpointError: the folder's configs or tensors do not make a FastVLM.
        VariantError: float16, in which the tower overflows; or an unknown `variant`.
    """
    refuse_float16(dtype)
    with open_tensors(folder) as store:
        checked = read_and_check(store, folder, image_size, dtype, variant)
        source, backbone, entries, unfilled = checked
        if not load:
            return build(source, dtype), source
        unfilled.fill_rest(of=backbone, but={id(e.variable) for e in entries.values()})
        by_size = sorted(entries.items(), key=lambda item: -store[item[0]].nbytes)
        load_weights(store, dict(by_size), progress=progress)
    sync_variables(backbone)
    return backbone, source
