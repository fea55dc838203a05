"""From what the user named to a model, and from a model in memory to what another process reads."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from dl_techniques.errors import DLTechniquesError, ExportError, MissingExtraError, PresetError

VISION_CLASSES = ("FastVLM", "MobileOne", "EfficientNetLite")
VLM_CLASS = "FastVLMCausalLM"
_ARCHIVE = ".keras"


def load_source(source: str | Path) -> Any:
    """A model from a preset, a checkpoint or a `.keras` file.

    Args:
        source: the name of a shipped preset, a folder, a file, or `hf://organisation/name`.

    Raises:
        PresetError: nothing there, damaged, or no model that can be exported.
    """
    import dl_techniques

    path = Path(source).expanduser()
    if path.suffix == _ARCHIVE:
        return _load_archive(path)
    name = _own_vision_class(path)
    if name is None:
        # This knows every layout, and needs keras-hub.
        from dl_techniques.loading.identify import identify

        subject = identify(source)
        name, path = subject.model, Path(subject.path)
    return getattr(dl_techniques, name).from_preset(path)


def _own_vision_class(folder: Path) -> str | None:
    """The class of a vision preset of ours; None for anything else."""
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not ours: whoever reads it next says what is wrong with it
        return None
    name = document.get("class_name") if isinstance(document, dict) else None
    return name if name in VISION_CLASSES else None


def class_of_source(source: Any) -> str:
    """Which of the three classes a source holds; no weight is read.

    Raises:
        PresetError: nothing there, or damaged.
        ExportError: a model of another class.
    """
    if not isinstance(source, (str, Path)):
        return class_of(source)
    path = Path(source).expanduser()
    if path.suffix == _ARCHIVE:
        return _class_in_archive(path)
    name = _own_vision_class(path)
    if name is None:
        from dl_techniques.loading.identify import identify

        name = identify(source).model
    return name


def _class_in_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("config.json"))["class_name"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise PresetError(f"{path} is no whole .keras file ({reason})") from error


def _load_archive(path: Path) -> Any:
    """A `.keras` file."""
    import keras

    if not path.is_file():
        raise PresetError(f"{path} does not exist; give a preset, a folder or a .keras file")
    _know_classes()
    try:
        model = keras.saving.load_model(path)
    except DLTechniquesError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PresetError(f"{path} cannot be read ({reason})") from error
    class_of(model)
    return model


def _know_classes() -> None:
    """Imports the classes whose names saved files hold; the last needs keras-hub."""
    import dl_techniques

    for name in (*VISION_CLASSES, VLM_CLASS):
        try:
            getattr(dl_techniques, name)
        except MissingExtraError:
            if name in VISION_CLASSES:
                raise


def class_of(model: Any) -> str:
    """Which of the three classes a model belongs to.

    Raises:
        ExportError: to none.
    """
    bases = [base.__name__ for base in type(model).__mro__]
    for name in (*VISION_CLASSES, VLM_CLASS):
        if name in bases:
            return name
    raise ExportError(
        f"a {type(model).__name__} cannot be exported; expected a model of the class "
        f"{', '.join((*VISION_CLASSES, VLM_CLASS))}, or a preset or file that holds one"
    )


def hand_over(model: Any, folder: Path) -> Path:
    """Writes a model in memory where another process can load it.

    Args:
        model: of one of the three classes.
        folder: an empty folder.

    Returns:
        What `load_source` takes.
    """
    class_of(model)
    target = folder / "model"
    model.save_to_preset(target)
    return target
