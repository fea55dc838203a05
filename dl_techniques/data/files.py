"""Write files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_writer(path: str | os.PathLike, binary: bool = False) -> Iterator[IO]:
    """Open a temporary file beside `path` that takes its name only when all went well.

    Args:
        path: The final file; its folder is made if needed.
        binary: Open for bytes instead of UTF-8 text.

    Yields:
        The open file. If the block raises, nothing is left behind and an older `path` stays.

    Example:
        >>> import tempfile, os
        >>> with atomic_writer(os.path.join(tempfile.mkdtemp(), "a.txt")) as file:
        ...     _ = file.write("whole or not at all")
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        encoding = None if binary else "utf-8"
        with os.fdopen(descriptor, "wb" if binary else "w", encoding=encoding) as file:
            yield file
        os.chmod(temporary, _mode_of_new_files())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode_of_new_files() -> int:
    """The permissions that a plain `open` would give (temporary files are private)."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
