"""Memory that the process keeps, so that the maps of a network are not fresh pages every time.

glibc's malloc takes every large block from the system and gives it back when it is freed. A layer's
output is such a block. The system has to find and clear its pages again at every layer, which
costs a little on any machine and much in some virtual ones.

Reference: mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # numbers of <malloc.h>
_NEVER = -1
_STEP = 2**26


def keep_freed_memory() -> bool:
    """Lets this process keep what it frees; call it once, at the start, before models are loaded.

    The process stays as large as it has ever been, so this is for processes that go on computing:
    servers, training, benchmarks. Its threads share one heap: a heap of a thread holds 64 MB, and
    XLA takes the memory of a whole network at once, in one of its threads.

    Returns:
        Whether the C library could be told: on Linux with glibc; elsewhere nothing happens.

    Example:
        >>> import dl_techniques
        >>> kept = dl_techniques.keep_freed_memory()
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    told = [
        library.mallopt(_MMAP_MAX, 0),
        library.mallopt(_ARENA_MAX, 1),
        library.mallopt(_TRIM_THRESHOLD, _NEVER),
        library.mallopt(_TOP_PAD, _STEP),
    ]
    return all(told)


@contextlib.contextmanager
def older_objects_kept() -> Iterator[None]:
    """Inside, garbage is looked for among new objects only; afterwards once among all.

    Where `gc.freeze` is in use already, nothing changes.

    Example:
        >>> with older_objects_kept():
        ...     squares = [n * n for n in range(4)]
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()
