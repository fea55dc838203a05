"""The vision encoder inside a vision-language model's preset, read without the language model.

Such a preset is in KerasHub's layout: the encoder stands serialized in its `config.json`, and its
arrays below one group of its weight files. keras-hub is not needed to read either.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py

HOLDER = "FastVLMBackbone"
"""The class whose presets hold an encoder."""
GROUP = "layers/image_embedding/vision_encoder"
WEIGHT_FILES = "*.weights.h5"


def encoder_document(document: dict[str, Any]) -> dict[str, Any]:
    """The serialized encoder in the config of a vision-language model; other configs unchanged.

    Raises:
        KeyError: the config names no encoder.
    """
    if document["class_name"] != HOLDER:
        return document
    encoder: dict[str, Any] = document["config"]["vision_encoder"]
    return encoder


def encoder_weights(folder: Path, scratch: str) -> Path:
    """Copies the encoder's arrays into a weight file of their own.

    Args:
        folder: the preset; its weights may be spread over several files.
        scratch: a folder for the new file.

    Raises:
        OSError: a damaged file.
        KeyError: none of the files holds an encoder.
    """
    target = Path(tempfile.mkdtemp(dir=scratch)) / "encoder.weights.h5"
    with h5py.File(target, "w") as own:
        for file in sorted(folder.glob(WEIGHT_FILES)):
            with h5py.File(file) as whole:
                if GROUP in whole:
                    _copy_below(whole[GROUP], own)
        if not len(own):
            raise KeyError(f"no group {GROUP}")
    return target


def _copy_below(source: h5py.Group, target: h5py.Group) -> None:
    """Everything in a group, beside what another file has put there already."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Dataset):
            source.copy(item, target, name)
        else:
            _copy_below(item, target.require_group(name))
