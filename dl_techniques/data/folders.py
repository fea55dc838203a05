"""Folders that change from one whole state to the next, whenever the process is killed."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dl_techniques.errors import PresetError

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_staging: ContextVar[frozenset[str]] = ContextVar("staging", default=frozenset())


@contextmanager
def updated_folder(
    dest: str | Path, replaced: Callable[[str, Path], bool] = lambda name, new: False
) -> Iterator[Path]:
    """Gives a folder to write into, whose files come into `dest` when all went well.

    Other files of an older `dest` stay. Inside the block, the same call for the folder that was
    given writes straight into it: objects that save their parts become visible at once.

    Args:
        dest: the final folder; made if needed.
        replaced: given the path of an older file below `dest` and the new folder, says whether
            the file belongs to what is written anew and goes. Files of the same path always do.

    Yields:
        The folder `.NAME.partial` beside `dest`, or inside where nothing can be renamed.

    Raises:
        PresetError: `dest` or what should be a folder above it is a file.

    Example:
        >>> import tempfile
        >>> dest = Path(tempfile.mkdtemp()) / "model"
        >>> with updated_folder(dest) as folder:
        ...     _ = (folder / "config.json").write_text("{}")
        >>> [path.name for path in dest.iterdir()]
        ['config.json']
    """
    refuse_file(dest)
    target = Path(os.path.realpath(dest))
    if str(target) in _staging.get():
        yield target
        return
    beside = _can_be_renamed(target)
    parent = target.parent if beside else target
    parent.mkdir(parents=True, exist_ok=True)
    partial = parent / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir()
    token = _staging.set(_staging.get() | {str(partial)})
    try:
        yield partial
        if beside:
            _keep_others(target, partial, replaced)
            put_in_place(partial, target)
        else:
            _move_files(partial, target, replaced)
    finally:
        _staging.reset(token)
        shutil.rmtree(partial, ignore_errors=True)


def refuse_file(dest: str | Path) -> None:
    """Says so if a folder cannot stand at a path because of a file.

    Raises:
        PresetError: naming the file.
    """
    path = Path(dest).absolute()
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if place.exists() or place.is_symlink():
            raise PresetError(
                f"{str(dest)!r} cannot be written: {str(place)!r} is a file and no folder; give "
                "the name of a new folder"
            )


def _can_be_renamed(folder: Path) -> bool:
    """Mount points, folders that a process stands in and closed parents keep their place."""
    if not folder.exists():
        return True
    here = Path(os.path.realpath(os.curdir))
    stood_in = folder == here or folder in here.parents
    return not stood_in and not os.path.ismount(folder) and os.access(folder.parent, os.W_OK)


def _keep_others(old: Path, new: Path, replaced: Callable[[str, Path], bool]) -> None:
    """Brings the files that stay into the new folder, as further names of the same bytes."""
    if not old.is_dir():
        return
    shutil.copymode(old, new)
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old)
        if path.is_dir() and not path.is_symlink():
            continue
        if (new / name).exists() or replaced(name.as_posix(), new):
            continue
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, new / name, follow_symlinks=False)
        except OSError:  # a file system without further names
            shutil.copy2(path, new / name, follow_symlinks=False)


def _move_files(new: Path, old: Path, replaced: Callable[[str, Path], bool]) -> None:
    """File by file, each whole: for a moment the folder holds files of both."""
    written = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
    there = [p.relative_to(old) for p in old.rglob("*") if p.is_file() and new not in p.parents]
    gone = [n for n in there if n not in written and replaced(n.as_posix(), new)]
    for name in written:
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / name, old / name)
    for name in gone:
        (old / name).unlink()


def put_in_place(partial: Path, dest: Path) -> None:
    """Gives `partial` the name `dest`; an older folder there stays whole until then.

    Where the system can exchange two names at once (Linux), every moment has a whole folder of
    this name. Elsewhere an older one is called `.NAME.old` for a moment.
    """
    old = dest.with_name(f".{dest.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if not dest.exists():
        partial.rename(dest)
    elif _exchange(partial, dest):
        shutil.rmtree(partial, ignore_errors=True)
    else:
        dest.rename(old)
        partial.rename(dest)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(left: Path, right: Path) -> bool:
    """Exchanges two names at once; False where system or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    result: int = rename(_HERE, os.fsencode(left), _HERE, os.fsencode(right), _EXCHANGE)
    return result == 0
