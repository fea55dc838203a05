"""The process that runs an export's host cannot reach Keras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dl_techniques.export.litert_vlm import probe

HOST = """
import json, sys
reachable = []
for name in {names}:
    try:
        __import__(name)
        reachable.append(name)
    except ImportError:
        pass
json.dump(reachable, open({out!r}, "w"))
"""


LOAD = """
import pathlib, runpy
runpy.run_path({probe!r})["load_host"](pathlib.Path({folder!r}))
"""


def test_keras_is_out_of_reach(tmp_path: Path) -> None:
    out = tmp_path / "reachable.json"
    (tmp_path / "host.py").write_text(HOST.format(names=probe.BLOCKED, out=str(out)))
    code = LOAD.format(probe=str(probe.__file__), folder=str(tmp_path))
    subprocess.run([sys.executable, "-B", "-c", code], check=True)
    assert out.read_text() == "[]"
