"""Files that the commands write: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dl_techniques.errors import DLTechniquesError


def check_writable(path: Path) -> None:
    """Says so before the work, not after it, if `path` cannot be written.

    Raises:
        DLTechniquesError: the folder does not exist, or `path` is a folder.
    """
    if path.is_dir():
        raise DLTechniquesError(f"cannot write {path}: it is a folder; name a file")
    if not path.parent.is_dir():
        raise DLTechniquesError(f"cannot write {path}: the folder {path.parent} does not exist")


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` beside `path` and moves it there: a reader never sees half a file.

    Raises:
        DLTechniquesError: the file cannot be written.
    """
    check_writable(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only the owner can read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise DLTechniquesError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
