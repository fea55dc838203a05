"""Logs: a file that does not grow for ever, and the console."""

from __future__ import annotations

import io
import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dl_techniques.errors import ServingError

FOLDER = "~/ml-fastvlm-logs"
BYTES, BACKUPS = 10 * 2**20, 5
MARKS = {
    logging.DEBUG: "\N{LEFT-POINTING MAGNIFYING GLASS}",
    logging.INFO: "\N{WHITE HEAVY CHECK MARK}",
    logging.WARNING: "\N{WARNING SIGN}",
    logging.ERROR: "\N{CROSS MARK}",
    logging.CRITICAL: "\N{FIRE}",
}
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Marked(logging.Formatter):
    """A line that begins with the mark of its level."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return f"{MARKS.get(record.levelno, '')} {super().format(record)}"


def set_up_logs(folder: str | Path, name: str = "server.log") -> Path:
    """Sends all logs of this process to a file and to stderr.

    Args:
        folder: made where it is missing.
        name: of the file. One process a file.

    Returns:
        The file.

    Raises:
        ServingError: it cannot be written.
    """
    path = Path(folder).expanduser() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(path, maxBytes=BYTES, backupCount=BACKUPS, encoding="utf-8")
    except OSError as error:
        raise ServingError(
            f"the log {path} cannot be written: {error.strerror}; name a folder by --log-dir"
        ) from error
    file.setFormatter(logging.Formatter(FORMAT))
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    console = logging.StreamHandler()
    console.setFormatter(Marked(FORMAT))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    # At INFO it writes the addresses of WebSockets with their queries.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    for handler in (file, console):
        root.addHandler(handler)
    return path
