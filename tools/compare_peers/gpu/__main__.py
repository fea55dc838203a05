"""The command line of the comparison on an accelerator."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.compare_peers.gpu.measure import Row, Shape, measure
from tools.compare_peers.gpu.peers import PEERS, choose
from tools.compare_peers.gpu.prepare import link, prepare_all
from tools.compare_peers.gpu.report import Reporter, described
from tools.compare_peers.gpu.settings import Settings
from tools.compare_peers.gpu.workers import LimitedWorker
from tools.compare_peers.job import Job
from tools.compare_peers.peers import Peer
from tools.compare_peers.report import facts

CELLS = "1024x1,512x1,1024x8,512x8"


def _names(text: str) -> list[str]:
    return text.split(",")


def _cells(text: str) -> list[tuple[int, int]]:
    """ "512x1,1024x8" -> [(512, 1), (1024, 8)]."""
    pairs = [cell.split("x") for cell in text.split(",")]
    return [(int(size), int(batch)) for size, batch in pairs]


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="python -m tools.compare_peers.gpu",
        description="The same network, weights and input in bfloat16 on one accelerator.",
    )
    add = found.add_argument
    add("--work", type=_names, default=list(PEERS), metavar="encoder,vlm", help="one or both")
    add("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the code")
    add("--network", default="fastvithd", help="variant, for encoder")
    add("--cells", type=_cells, default=_cells(CELLS), metavar="PIXELSxBATCH,...",
        help=f"for encoder; {CELLS} unless said")  # fmt: skip
    add("--size", default="fastvlm_0.5b", help="published size, for vlm")
    add("--image-size", type=int, default=1024, metavar="PIXELS", help="for vlm")
    add("--new-tokens", type=int, default=32, help="for vlm")
    add("--numbers", type=json.loads, default={}, metavar="JSON",
        help='of vlm, others than the size\'s, e.g. \'{"num_layers": 2}\'')  # fmt: skip
    add("--peers", type=_names, help="names, with commas; the baselines are always measured")
    add("--rounds", type=int, default=5)
    add("--turn-seconds", type=float, default=0.15, help="a peer computes so long in a round")
    add("--least", type=int, default=5, help="forward passes of a turn, at least")
    add("--answers", type=int, default=2, help="answers of a turn, at least, for vlm")
    add("--cudnn-benchmark", action="store_true", help="torch tries cuDNN's algorithms")
    add("--at-once", type=int, default=16, help="processes that load at the same time")
    add("--limit", type=float, default=90.0, help="seconds for all loading and compiling")
    add("--files", type=Path, metavar="FOLDER", help="keep weights there, for the next run")
    add("--out", type=Path, metavar="FOLDER", help="write gpu.md and gpu.json as it goes")
    add("--list", action="store_true", help="print the peers and leave")
    return found


def weight_jobs(options: argparse.Namespace) -> dict[str, Job]:
    """What weights are written, by kind of work."""
    jobs = {
        "encoder": Job("encoder", options.network, 0),
        "vlm": Job("vlm", options.size, options.image_size, new_tokens=options.new_tokens,
                   numbers=options.numbers),
    }  # fmt: skip
    if unknown := set(options.work) - set(jobs):
        raise SystemExit(f"unknown work {sorted(unknown)}; known: {', '.join(jobs)}")
    return {work: jobs[work] for work in options.work}


def jobs_of(options: argparse.Namespace) -> Iterator[Job]:
    """The shapes, in the order in which they are measured."""
    for work, job in weight_jobs(options).items():
        if work == "vlm":
            yield job
            continue
        for size, batch in options.cells:
            yield dataclasses.replace(job, image_size=size, batch_size=batch)


def shapes_of(options: argparse.Namespace, folder: Path, weights: Path) -> list[Shape]:
    """A folder for every shape, with its job, the settings and the weights."""
    shapes = []
    for job in jobs_of(options):
        own = folder / f"{job.work}_{job.image_size}x{job.batch_size}"
        own.mkdir()
        job.write(own)
        settings_of(options, job.work).write(own)
        link(weights / job.work, own)
        rows = [Row(peer) for peer in choose(job.work, options.peers)]
        shapes.append(Shape(job, own, rows))
    return shapes


def settings_of(options: argparse.Namespace, work: str) -> Settings:
    """How to measure: a whole answer takes so long that few of them make a turn."""
    vlm = work == "vlm"
    return Settings(
        device=options.device,
        turn_seconds=options.turn_seconds,
        least=options.answers if vlm else options.least,
        uncounted=1 if vlm else 2,
        cudnn_benchmark=options.cudnn_benchmark,
    )


def about_run(options: argparse.Namespace) -> dict[str, Any]:
    """Date, processor, packages and settings."""
    found = facts(next(jobs_of(options)), options.rounds)
    del found["job"], found["threads"]  # of the other comparison
    settings = {work: dataclasses.asdict(settings_of(options, work)) for work in options.work}
    return {**found, "settings": settings}


def run(options: argparse.Namespace, folder: Path) -> None:
    """Prepares, measures, prints."""
    weights = options.files or folder / "weights"
    prepare_all((weights / work, job) for work, job in weight_jobs(options).items())
    shapes = shapes_of(options, folder, weights)
    reporter = Reporter(shapes, about_run(options), options.out)

    end = time.perf_counter() + options.limit

    def start(peer: Peer, own: Path) -> LimitedWorker:
        return LimitedWorker(peer, own, max(0.0, end - time.perf_counter()))

    measure(shapes, options.rounds, options.at_once, start, reporter)
    print(described(reporter.about, shapes))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison."""
    options = parser().parse_args(argv)
    if options.list:
        for work, table in PEERS.items():
            for peer in table.values():
                print(f"{work}: {peer.name}: {peer.what}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        run(options, Path(temporary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
