"""Memory that is kept is not asked for again: the system counts the pages that it had to find."""

from __future__ import annotations

import gc
import mmap
import os
import platform
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest

import dl_techniques
from dl_techniques.runtime import memory as allocator
from dl_techniques.runtime.memory import older_objects_kept

pytestmark = pytest.mark.once

FAULTS = """
import resource, sys, threading
import numpy as np
from dl_techniques.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def fill():
    size = int(sys.argv[2])
    thread = threading.Thread(target=lambda: np.full(size, 1.5, "float32").sum())
    thread.start()
    thread.join()
for _ in range(3):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a function of glibc")


def pages_found(mode: str, size: int) -> int:
    """By threads that fill an array of so many float32, twenty times."""
    command = [sys.executable, "-c", FAULTS, mode, str(size)]
    # NumPy asks for huge pages, of which few are enough; a system may use them all the same.
    variables = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout
    return int(said.split()[-1])


@GLIBC
@pytest.mark.parametrize("size", [10_000_000, 40_000_000])
def test_freed_memory_is_used_again(size: int) -> None:
    """The larger array is one for which the heap of a thread has no room.

    Small objects can come to lie where an array was, and a later one needs pages once more.
    """
    array = size * 4 // mmap.PAGESIZE
    assert pages_found("keep", size) < 3 * array < 15 * array < pages_found("as it is", size)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = dl_techniques.keep_freed_memory
    monkeypatch.setattr(allocator, "platform", SimpleNamespace(libc_ver=lambda: ("", "")))
    monkeypatch.setattr(allocator, "ctypes", None)
    assert keep() is False


@pytest.fixture(autouse=True)
def nothing_is_kept() -> None:
    """The suite keeps what older files left, where the package's own function would do nothing."""
    gc.unfreeze()


class Ring:
    """Garbage of the kind that only a collection finds."""

    def __init__(self) -> None:
        self.other = self


def test_older_objects_are_kept_for_a_while() -> None:
    gc.disable()  # none but those that are asked for
    try:
        older = weakref.ref(Ring())
        with older_objects_kept():
            newer = weakref.ref(Ring())
            gc.collect()
            assert newer() is None and older() is not None
        assert older() is None and gc.get_freeze_count() == 0
    finally:
        gc.enable()


def test_somebody_elses_freeze_stays() -> None:
    gc.freeze()
    try:
        with older_objects_kept():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
