"""The command line of the comparison: prepares, measures, prints."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dl_techniques.data.files import atomic_writer
from tools.compare_peers.job import Job
from tools.compare_peers.measure import BaselineError, compare
from tools.compare_peers.peak import measured_peaks
from tools.compare_peers.peers.engine_files import needed
from tools.compare_peers.peers.table import AGAINST, PEERS, Peer, choose
from tools.compare_peers.prepare import MACS
from tools.compare_peers.report import facts, shares, to_json, to_markdown
from tools.compare_peers.timing import TURN_SECONDS
from tools.compare_peers.workers import DEVICE, Worker

SIZES = {"vision": 512, "vlm": 1024}


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="python -m tools.compare_peers",
        description="The same network, weights and input in every engine, timed in turns.",
    )
    found.add_argument("--device", choices=list(AGAINST), default="cpu",
                       help="cuda: a graphics card, with peers of its own")  # fmt: skip
    found.add_argument("--work", choices=list(PEERS), default="vision")
    found.add_argument("--network", default="fastvithd", help="variant, for --work vision")
    found.add_argument("--size", default="fastvlm_0.5b", help="published size, for --work vlm")
    found.add_argument("--image-size", type=int, metavar="PIXELS")
    found.add_argument("--batch-size", type=int, default=1, help="for --work vision")
    found.add_argument("--new-tokens", type=int, default=32, help="for --work vlm")
    found.add_argument("--numbers", type=json.loads, default={}, metavar="JSON",
                       help='others than the size\'s, e.g. \'{"num_layers": 2}\'')  # fmt: skip
    found.add_argument("--repeats", type=int, default=7)
    found.add_argument("--threads", type=int, default=0, help="0: one for each core")
    found.add_argument("--peers", type=lambda text: text.split(","), help="names, with commas")
    found.add_argument("--against", metavar="PEER", help="times are divided by its; the baseline's "
                       "unless said, on a card those of the best known in bfloat16")  # fmt: skip
    found.add_argument("--at-once", type=int, metavar="NUMBER",
                       help="processes held in memory; 6, on a card 16, which load side by side "
                       "there")  # fmt: skip
    found.add_argument("--limit", type=float, metavar="SECONDS",
                       help="a peer that takes longer to load or to answer is ended")  # fmt: skip
    found.add_argument("--pause", type=float, default=0.2, help="seconds between two turns")
    found.add_argument("--turn-seconds", type=float, default=TURN_SECONDS,
                       help="a peer computes again until they are over, and its median counts; "
                       "0: once, which times a start after a rest")  # fmt: skip
    found.add_argument("--files", type=Path, metavar="FOLDER",
                       help="keep weights and engine files there, for the next run")  # fmt: skip
    found.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    found.add_argument("--list", action="store_true", help="print the peers and leave")
    return found


def job_of(options: argparse.Namespace) -> Job:
    """What the options ask for."""
    vision = options.work == "vision"
    return Job(
        options.work,
        options.network if vision else options.size,
        options.image_size or SIZES[options.work],
        options.batch_size if vision else 1,
        options.threads,
        options.new_tokens,
        numbers=options.numbers,
        device=options.device,
    )


def prepare(folder: Path) -> None:
    """Writes the weights, in a process of its own: this one must stay small."""
    subprocess.run(
        [sys.executable, "-m", "tools.compare_peers.prepare", str(folder)],
        env={**os.environ, **DEVICE["cpu"], "KERAS_BACKEND": "torch", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        stdout=sys.stderr,
    )


def prepare_once(folder: Path, job: Job) -> None:
    """Prepares a folder, unless it was prepared for the same work before.

    Raises:
        SystemExit: it was prepared for something else.
    """
    done = folder / "prepared"
    if done.is_file():
        if Job.read(folder) != job:
            raise SystemExit(f"{folder} was prepared for {Job.read(folder)}, not for {job}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    job.write(folder)
    prepare(folder)
    done.touch()


def write_file_of(peer: Peer, folder: Path) -> None:
    """Writes what an engine reads while no other peer is in memory: conversion takes much of it."""
    file = peer.arguments.get("file")
    if file is None or peer.missing():
        return
    say(f"writing {file}")
    try:
        needed(folder, file)
    except subprocess.CalledProcessError as error:
        say(f"{file} could not be written: {error}")  # the peer tries again, and reports it


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, folder: Path) -> tuple[str, dict[str, Any]]:
    """The comparison: as Markdown, and as plain values."""
    job, against = job_of(options), options.against or AGAINST[options.device][options.work]
    peers = choose(options.work, options.peers, options.device, against)
    about = {**facts(job, options.repeats, options.turn_seconds), "against": against}
    prepare_once(folder, job)
    for peer in peers:
        write_file_of(peer, folder)
    on_card = job.device != "cpu"
    peaks = {} if on_card else measured_peaks(job.threads)
    at_once = options.at_once or (16 if on_card else 6)
    results = compare(
        peers, folder, options.repeats, at_once, options.pause, options.turn_seconds,
        loading=at_once if on_card else 1, against=against,
        start=partial(Worker, limit=options.limit), say=say,
    )  # fmt: skip
    table = to_markdown(results, about)
    if job.work == "vision" and not on_card:
        operations = 2 * int((folder / MACS).read_text())
        about.update(operations=operations, peaks=faster(peaks, measured_peaks(job.threads)))
        table += "\n\n" + shares(results, operations, about["peaks"]["float32"]["rate"])
    return table, to_json(results, about)


def faster(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Of two measurements of the peaks, the faster one in each precision."""
    return {name: max(left[name], right[name], key=lambda found: found["rate"]) for name in left}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; 1 where there is nothing to compare with."""
    options = parser().parse_args(argv)
    if options.list:
        for peer in PEERS[options.work].values():
            missing = peer.missing()
            state = f"not installed: {', '.join(missing)}" if missing else "installed"
            print(f"{peer.name}: {peer.what}, {peer.precision}, {state}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        try:
            table, values = measure(options, options.files or Path(temporary))
        except BaselineError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(table)
    if options.json:
        with atomic_writer(options.json) as file:
            file.write(json.dumps(values, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
