"""Where an export is written until it has been checked: beside its target, under another name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dl_techniques.data.folders import put_in_place
from dl_techniques.errors import ExportError

# What a converter's own error says that is no OSError.
NO_SPACE = "No space left on device"
_CANNOT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


def check_target(path: Path, suffix: str, is_folder: bool, overwrite: bool) -> None:
    """Refuses a place that cannot be written, before the work.

    Args:
        path: the file or folder to write.
        suffix: the ending it must have; "" for any.
        is_folder: whether a folder will stand there.
        overwrite: replace what is there.

    Raises:
        ExportError: a wrong ending, no such folder, or something is there already.
    """
    if suffix and path.suffix != suffix:
        raise ExportError(f"{path} must end in {suffix}, e.g. {path.stem}{suffix}")
    if not path.absolute().parent.is_dir():
        raise ExportError(f"{path.absolute().parent} is no folder; make it first")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} exists already; give another name, or say that it be replaced")
    if path.exists() and path.is_dir() != is_folder:
        there, here = ("folder", "file") if path.is_dir() else ("file", "folder")
        raise ExportError(f"{path} is a {there} and would become a {here}; give another name")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ExportError(f"{path} is the folder that you are in; give another name")


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Gives a path to write to; what stands there takes the name `target` when all went well.

    Args:
        target: file or folder; an older one stays whole until the end.

    Yields:
        A path of the same name inside a hidden folder beside the target. Everything in that
        folder moves (`m.xml` has its weights in `m.bin`); on an error nothing does.

    Raises:
        ExportError: the disk is full, or the place cannot be written.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.tflite"
        >>> with staged(target) as path:
        ...     _ = path.write_bytes(b"checked")
        >>> [p.name for p in target.parent.iterdir()]
        ['a.tflite']
    """
    target = target.absolute()
    scratch = target.with_name(f".{target.name}.export")
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    with plain_disk_errors(target):
        try:
            scratch.mkdir()
            yield scratch / target.name
            _move(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def plain_disk_errors(target: Path) -> Iterator[None]:
    """One line about a disk that is full or a place that is closed; other errors pass."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        closed = isinstance(error, OSError) and error.errno in _CANNOT
        if not closed and NO_SPACE not in str(error):
            raise
        reason = NO_SPACE if NO_SPACE in str(error) else getattr(error, "strerror", error)
        raise ExportError(
            f"{target} cannot be written ({reason}); make room or choose another place"
        ) from error


def _move(folder: Path, target: Path) -> None:
    """Moves everything beside the target, the target itself last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == target.name):
        if path.is_dir():
            put_in_place(path, target.with_name(path.name))
        else:
            os.replace(path, target.with_name(path.name))
