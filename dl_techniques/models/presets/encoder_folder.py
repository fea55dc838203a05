"""A vision encoder inside a vision-language model's preset, read without the language model.

Such a preset is in KerasHub's layout: the encoder stands serialized in its `config.json`, and its
arrays below one group of its weight files. Where several networks look at a picture (`Towers`),
each is an encoder of its class. keras-hub is not needed to read any.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import h5py

HOLDER = "FastVLMBackbone"
"""The class whose presets hold an encoder."""
TOWERS = "Towers"
"""The class of an encoder that holds several."""
GROUP = "layers/image_embedding/vision_encoder"
WEIGHT_FILES = "*.weights.h5"


def encoder_document(document: dict[str, Any], wanted: str = "") -> dict[str, Any]:
    """The serialized encoder in the config of a vision-language model; other configs unchanged.

    Args:
        document: the config.
        wanted: a class; of several networks the first of it is taken, if there is one.

    Raises:
        KeyError: the config names no encoder.
    """
    if document["class_name"] != HOLDER:
        return document
    encoder: dict[str, Any] = document["config"]["vision_encoder"]
    place = _place_among_towers(encoder, wanted)
    if place is None:
        return encoder
    tower: dict[str, Any] = encoder["config"]["networks"][place]
    return tower


def _place_among_towers(encoder: dict[str, Any], wanted: str) -> int | None:
    """Which of several networks is of a class; None where there is one encoder, or none such."""
    if encoder["class_name"] != TOWERS or wanted == TOWERS:
        return None
    kinds = [network["class_name"] for network in encoder["config"]["networks"]]
    return kinds.index(wanted) if wanted in kinds else None


def encoder_weights(folder: Path, scratch: str, document: dict[str, Any], wanted: str = "") -> Path:
    """Copies the encoder's arrays into a weight file of their own.

    Args:
        folder: the preset; its weights may be spread over several files.
        scratch: a folder for the new file.
        document: the preset's config.
        wanted: as in `encoder_document`.

    Raises:
        OSError: a damaged file.
        KeyError: none of the files holds an encoder.
    """
    target = Path(tempfile.mkdtemp(dir=scratch)) / "encoder.weights.h5"
    group = _group_of(document, wanted)
    with h5py.File(target, "w") as own:
        for file in sorted(folder.glob(WEIGHT_FILES)):
            with h5py.File(file) as whole:
                if group in whole:
                    _copy_below(whole[group], own)
        if not len(own):
            raise KeyError(f"no group {group}")
    return target


def _group_of(document: dict[str, Any], wanted: str) -> str:
    """Where the arrays stand: Keras numbers the layers of a class in their order."""
    encoder = document["config"]["vision_encoder"]
    place = _place_among_towers(encoder, wanted)
    if place is None:
        return GROUP
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", wanted)
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return f"{GROUP}/layers/{name}"


def _copy_below(source: h5py.Group, target: h5py.Group) -> None:
    """Everything in a group, beside what another file has put there already."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Dataset):
            source.copy(item, target, name)
        else:
            _copy_below(item, target.require_group(name))
