"""A function killed at every moment at which it touches a folder, and what it leaves there."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = (
    "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree",
    "tempfile.mkdtemp", "ctypes.dlsym",
)  # fmt: skip
"""What Python tells before it is done (`sys.addaudithook`)."""
MOST = 400


def contents(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> bytes of every file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def states_when_killed(function: Callable[[], Any], folder: Path) -> list[dict[str, bytes]]:
    """Kills a process that runs `function` at its first moment, at its second, and so on.

    Args:
        function: writes somewhere below `folder`; runs in a fork, once for each moment.
        folder: whose contents are looked at, and put back before each run.

    Returns:
        Contents of the folder after each kill.
    """
    before = folder.with_name(folder.name + ".before")
    shutil.copytree(folder, before, symlinks=True)
    states = []
    for moment in range(1, MOST):
        child = os.fork()
        if child == 0:
            _run_and_die(function, folder, moment)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"the function fails by itself: {status}"
        if killed:
            states.append(contents(folder))
        for path in folder.iterdir():
            path.unlink() if path.is_file() or path.is_symlink() else shutil.rmtree(path)
        shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
        if not killed:
            shutil.rmtree(before)
            return states
    raise AssertionError(f"more than {MOST} moments")


def _run_and_die(function: Callable[[], Any], folder: Path, moment: int) -> None:
    """In the child: runs the function until the moment has come."""
    left, about = moment, os.fspath(folder)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        here = event == "ctypes.dlsym" or any(about in str(a) for a in arguments)
        if event in MOMENTS and here:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(watch)
        function()
        status = 0
    finally:
        os._exit(status)
