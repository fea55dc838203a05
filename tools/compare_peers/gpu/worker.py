"""The process of one peer and one shape.

Run as `python -m tools.compare_peers.gpu.worker WORK PEER FOLDER`. Beside what every worker
answers, "device" tells what it computes on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tools.compare_peers import worker
from tools.compare_peers.gpu.peers import PEERS


def answer(runner: Any, request: str) -> dict[str, Any]:
    """Does what a line asks for."""
    if request == "device":
        return {"device": runner.device()}
    return worker.answer(runner, request)


if __name__ == "__main__":
    peer = PEERS[sys.argv[1]][sys.argv[2]]
    worker.serve(lambda: peer.load(Path(sys.argv[3])), answer)
