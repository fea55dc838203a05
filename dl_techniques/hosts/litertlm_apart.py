"""Asks a bundle in a process of its own.

    python -m dl_techniques.hosts.litertlm_apart JOB.json ANSWERS.json

TensorFlow and the engine each bring a LiteRT of their own, and an error in the engine's native code
ends its process: the exporter therefore never loads it. Keras is not imported here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dl_techniques
from dl_techniques.errors import DLTechniquesError, ExportError
from dl_techniques.hosts.litertlm import EngineChat, to_png

MODULE = "dl_techniques.hosts.litertlm_apart"
NATIVE = "└ "  # stands in front of what the engine's own code says about an error


@dataclass(frozen=True)
class Turn:
    """A question with the pictures that come with it, uint8[H, W, 3] each."""

    question: str
    pictures: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What was read and what was written.

    Attributes:
        prompt: ids of the whole conversation up to the answer; -1 for a row of a picture.
        text: the greedy answer.
    """

    prompt: list[int]
    text: str


def engine_answers(
    bundle: str | Path, conversations: Sequence[Sequence[Turn]], max_new_tokens: int
) -> list[list[Answer]]:
    """Holds conversations with a bundle in the LiteRT-LM engine.

    Args:
        bundle: the `.litertlm` file.
        conversations: turns of each.
        max_new_tokens: longest answer.

    Returns:
        An answer for every turn.

    Raises:
        ExportError: the engine refuses the bundle, or fails; its last line is in the message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {
            "bundle": str(Path(bundle).absolute()),
            "max_new_tokens": max_new_tokens,
            "conversations": [
                [_as_json(turn, folder / f"{i}_{j}") for j, turn in enumerate(turns)]
                for i, turns in enumerate(conversations)
            ],
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run([str(folder / "job.json"), str(folder / "answers.json")])
        answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return [[Answer(**answer) for answer in turns] for turns in answers]


def _as_json(turn: Turn, stem: Path) -> dict[str, Any]:
    """A turn whose pictures lie in files."""
    paths = [stem.with_name(f"{stem.name}_{k}.png") for k in range(len(turn.pictures))]
    for path, picture in zip(paths, turn.pictures, strict=True):
        path.write_bytes(to_png(picture))
    return {"question": turn.question, "images": [str(path) for path in paths]}


def _run(arguments: Sequence[str]) -> None:
    """This module in another process, from wherever the package was imported."""
    root = str(Path(dl_techniques.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", MODULE, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        reason = _reason(done.stderr) or f"exit code {done.returncode}"
        raise ExportError(f"the bundle does not run in the LiteRT-LM engine: {reason}")


def _reason(log: str) -> str:
    """What went wrong in one line: the last one, and behind it what the native code says."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    native = [line.removeprefix(NATIVE) for line in lines if line.startswith(NATIVE)]
    return "; ".join(line[:300] for line in [*lines[-1:], *native[-1:]])


def main(arguments: Sequence[str]) -> int:
    """Reads the job, writes the answers; 2 if a text or the bundle is refused."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        with EngineChat(job["bundle"], max_new_tokens=job["max_new_tokens"]) as chat:
            answers = [_converse(chat, turns) for turns in job["conversations"]]
    except DLTechniquesError as error:
        print(error, file=sys.stderr)
        return 2
    Path(arguments[1]).write_text(json.dumps(answers), encoding="utf-8")
    return 0


def _converse(chat: EngineChat, turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    chat.reset()
    answers = []
    for turn in turns:
        prompt = chat.prompt_ids(turn["question"], turn["images"])
        answers.append(asdict(Answer(prompt, chat.ask(turn["question"], turn["images"]))))
    return answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
