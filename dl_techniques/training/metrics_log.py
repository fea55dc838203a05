"""`metrics.jsonl`: a line for each segment, none of a step that a resumed run takes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dl_techniques.data.files import atomic_writer


class MetricsLog:
    """Lines of a step and its measurements.

    Args:
        path: of the file; None keeps nothing.

    Example:
        >>> import tempfile
        >>> log = MetricsLog(Path(tempfile.mkdtemp()) / "metrics.jsonl")
        >>> log.append({"step": 10, "loss": 0.5}), log.append({"step": 20, "loss": 0.25})
        (None, None)
        >>> log.cut(10)
        >>> log.lines()
        [{'step': 10, 'loss': 0.5}]
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """What was written; a last line that a kill cut short is left out."""
        if self.path is None or not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def cut(self, step: int) -> None:
        """Leaves out what was written after a step."""
        if self.path is not None and self.path.is_file():
            kept = [line for line in self.lines() if line["step"] <= step]
            with atomic_writer(self.path) as file:
                file.writelines(json.dumps(line) + "\n" for line in kept)
