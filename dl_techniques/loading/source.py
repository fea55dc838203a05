"""From what the user named to a model, and from a model in memory to what another process reads."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.errors import DLTechniquesError, MissingExtraError, PresetError

if TYPE_CHECKING:
    import keras

    from dl_techniques.loading.contents import Contents

VISION_CLASSES = ("FastVLM", "MobileOne", "EfficientNetLite")
VLM_CLASS = "FastVLMCausalLM"
MODEL, ARCHIVE, PRESET, CHECKPOINT = "model", "archive", "preset", "checkpoint"
LITERT, LITERTLM = "litert", "litertlm"
OF_OTHER_RUNTIMES = (LITERT, LITERTLM)
ARCHIVE_SUFFIX = ".keras"
_BUNDLE = ".litertlm"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Source:
    """What the user named.

    Attributes:
        kind: "model" (one in memory), "archive" (a `.keras` file), "preset" (a folder that this
            package wrote), "checkpoint" (other people's weights), "litert" (a folder of an exported
            model) or "litertlm" (a bundle).
        path: file or folder; None for a model in memory.
        model: name of the class of `dl_techniques` that it is, or that loads it; None for files
            of other runtimes.
        bytes: of the weights, where they lie: on disk or in memory.
        contents: what loading takes, of presets and checkpoints that were looked through.
    """

    kind: str
    path: Path | None
    model: str | None
    bytes: int
    contents: Contents | None = None

    @property
    def answers_questions(self) -> bool:
        """Whether it is a vision-language model, in whatever runtime."""
        return self.model == VLM_CLASS or self.kind in OF_OTHER_RUNTIMES


def find(source: Any, *, look_through: bool = False) -> Source:
    """What a source is; no weight is read.

    Args:
        source: a model, the name of a shipped preset, a folder, a file, or
            `hf://organisation/name`.
        look_through: find the `contents` of every preset and checkpoint, which takes longer.

    Raises:
        PresetError: nothing there, or damaged.
        CheckpointError: a weight file that makes no network.
        ExportError: a model of another class.

    Example:
        >>> found = find("demo")
        >>> found.kind, found.model
        ('preset', 'FastVLMCausalLM')
    """
    quick = find_quickly(source)
    if quick is not None and not (look_through and quick.kind == PRESET):
        return quick
    # This knows every layout, and needs keras-hub.
    from dl_techniques.loading.contents import contents_of

    inside = contents_of(source)
    kind = PRESET if inside.layout == "keras" else CHECKPOINT
    return Source(kind, Path(inside.path), inside.model, inside.stored_bytes, inside)


def find_quickly(source: Any) -> Source | None:
    """`find` for what a suffix or a small file tells; None for what takes a look at weights.

    Args:
        source: as `find` takes it.

    Raises:
        PresetError: a damaged `.keras` file.
        ExportError: a model of another class.
    """
    if not isinstance(source, (str, Path)):
        name = class_of(source)
        return Source(MODEL, None, name, sum(_bytes_of(variable) for variable in source.weights))
    path = Path(source).expanduser()
    if path.suffix == ARCHIVE_SUFFIX:
        return _archive(path)
    if path.suffix == _BUNDLE and path.is_file():
        return Source(LITERTLM, path, None, path.stat().st_size)
    own = _own_vision_class(path)
    if own is not None:
        return Source(PRESET, path, own, sum(file.stat().st_size for file in path.glob("*.h5")))
    if (path / _MANIFEST).is_file() and any(path.glob("*.tflite")):
        return Source(LITERT, path, None, sum(f.stat().st_size for f in path.glob("*.tflite")))
    return None


def _bytes_of(variable: keras.Variable) -> int:
    """Bytes of a variable: no array is made of it."""
    import ml_dtypes
    import numpy as np

    name = str(variable.dtype)
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    return int(np.prod(variable.shape)) * dtype.itemsize


def load(source: str | Path) -> Any:
    """A model from a preset, a checkpoint or a `.keras` file.

    Args:
        source: the name of a shipped preset, a folder, a file, or `hf://organisation/name`.

    Raises:
        PresetError: nothing there, damaged, files of another runtime, or no model of this package.

    Example:
        >>> type(load("demo")).__name__
        'FastVLMCausalLM'
    """
    import dl_techniques

    path = Path(source).expanduser()
    if path.suffix == ARCHIVE_SUFFIX:
        return _load_archive(path)
    found = find(source)
    if found.model is None:
        raise PresetError(
            f"{source} holds files of another runtime ({found.kind}), which cannot be loaded as a "
            "Keras model; name the preset that it was exported from"
        )
    return getattr(dl_techniques, found.model).from_preset(found.path)


def _own_vision_class(folder: Path) -> str | None:
    """The class of a vision preset of ours; None for anything else."""
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not ours: whoever reads it next says what is wrong with it
        return None
    name = document.get("class_name") if isinstance(document, dict) else None
    return name if name in VISION_CLASSES else None


def class_of_source(source: Any) -> str | None:
    """Which of the three classes a source holds, as `find`."""
    return find(source).model


def _archive(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            name = str(json.loads(archive.read("config.json"))["class_name"])
            weights = sum(i.file_size for i in archive.infolist() if i.filename.endswith(".h5"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise PresetError(f"{path} is no whole .keras file ({reason})") from error
    return Source(ARCHIVE, path, name, weights)


def _load_archive(path: Path) -> Any:
    """A `.keras` file."""
    import keras

    if not path.is_file():
        raise PresetError(f"{path} does not exist; give a preset, a folder or a .keras file")
    _classes()
    try:
        model = keras.saving.load_model(path)
    except DLTechniquesError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PresetError(f"{path} cannot be read ({reason})") from error
    class_of(model)
    return model


def _classes() -> dict[str, type]:
    """The classes that saved files name, imported; the last needs keras-hub."""
    import dl_techniques

    found = {}
    for name in (*VISION_CLASSES, VLM_CLASS):
        try:
            found[name] = getattr(dl_techniques, name)
        except MissingExtraError:
            if name in VISION_CLASSES:
                raise
    return found


def class_of(model: keras.Model) -> str:
    """Which of the three classes a model belongs to.

    Raises:
        ExportError: to none.
    """
    from dl_techniques.models.picture_network import no_network

    for name, kind in _classes().items():
        if isinstance(model, kind):
            return name
    raise no_network(model)


def hand_over(model: keras.Model, folder: Path) -> Path:
    """Writes a model in memory where another process can load it.

    Args:
        model: of one of the three classes.
        folder: an empty folder.

    Returns:
        What `load` takes.
    """
    class_of(model)
    target = folder / "model"
    model.save_to_preset(target)
    return target
