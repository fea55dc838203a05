"""A folder that appears whole, and can be gone on with after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dl_techniques.data.folders import put_in_place, refuse_file

STAMP = ".conversion"


@contextmanager
def replacing_folder(dest: Path, stamp: str | None = None) -> Iterator[Path]:
    """Gives a folder to write into, which takes the name `dest` when all went well.

    Args:
        dest: the final folder; an older one is replaced at the end, not before.
        stamp: says from what the contents are made. With it, what an interrupted run with the
            same stamp left is given again; without it nothing is left behind.

    Yields:
        The folder `.NAME.partial` beside `dest`.

    Raises:
        PresetError: `dest` is a file.

    Example:
        >>> import tempfile
        >>> dest = Path(tempfile.mkdtemp()) / "model"
        >>> with replacing_folder(dest) as folder:
        ...     _ = (folder / "config.json").write_text("{}")
        >>> [path.name for path in dest.iterdir()]
        ['config.json']
    """
    refuse_file(dest)
    dest = dest.absolute()
    partial = dest.with_name(f".{dest.name}.partial")
    if stamp is None or not _has_stamp(partial, stamp):
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    if stamp is not None:
        (partial / STAMP).write_text(stamp, encoding="utf-8")
    try:
        yield partial
    except BaseException:
        if stamp is None:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    (partial / STAMP).unlink(missing_ok=True)
    put_in_place(partial, dest)


def _has_stamp(folder: Path, stamp: str) -> bool:
    path = folder / STAMP
    return path.is_file() and path.read_text(encoding="utf-8") == stamp
