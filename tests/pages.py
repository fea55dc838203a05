"""The code of README and docs, and how a newcomer runs it.

A Python block prints what the `text` block below it shows, and nothing without one. Blocks called
`bash` need nothing but a clone; `sh` and `py` need a network, files of the reader's or a Mac.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.demo_environment import ROOT, newcomers_variables

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = PAGES[0].read_text(encoding="utf-8")
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
PYTHON = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", ALL, flags=re.DOTALL)
BASH = "\n".join(re.findall(r"```bash\n(.*?)```", ALL, flags=re.DOTALL))
SHELL = "\n".join(re.findall(r"```(?:ba)?sh\n(.*?)```", ALL, flags=re.DOTALL))
COMMANDS = [line for line in SHELL.splitlines() if line.startswith("fastvlm ")]
VARIABLES = dict(re.findall(r"^export (KERAS_\w+)=(\w+)", BASH, flags=re.MULTILINE))
EXPORTS = "from dl_techniques.export import"  # the page: needs the extra `export`


NAMED = [(f"block {i}", *block) for i, block in enumerate(PYTHON)]


def clone(folder: Path) -> Path:
    """A folder with what the examples read of a clone; what they write stays out of ours."""
    (folder / "home").mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run(
    command: list[str], folder: Path, programs: Path, variables: dict[str, str] = VARIABLES
) -> subprocess.CompletedProcess[str]:
    """Runs a command as somebody who follows the page."""
    environment = newcomers_variables(folder / "home", programs, variables)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        input="What is in the picture?\n",
    )


def printed(text: str) -> str:
    """What a program printed, without the progress of `fit`."""
    lines = re.sub(r"\x1b\[[0-9;]*m|\x08", "", text).replace("\r", "\n").splitlines()
    progress = re.compile(r"Epoch \d+/\d+$|\s*\d+/\d+ [━ ]|\s*$")
    return "\n".join(line.rstrip() for line in lines if not progress.match(line))
