"""Figures of `fastvlm serve` under load, as a table.

    python -m tools.load_server --preset demo --clients 1 8 32 --seconds 20
    python -m tools.load_server --preset demo --requests 10000   # memory
    python -m tools.load_server --preset demo --mixed            # random lengths and limits

Starts the server, waits until it is ready, and asks about frames that it has not seen. The load
comes from this process: its own share of the processor is printed beside the server's. On a
machine that does other work the figures say nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.load_server.clients import Seen, bodies, load, mixed_bodies

HEADER = ("clients", "requests/s", "tokens/s", "p50 ms", "p99 ms", "longest ms", "CPU ms", "failed")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        address: `http://host:port`.
        pid: of its process.
        ready_seconds: from its start until it answered.
    """

    address: str
    pid: int
    ready_seconds: float


@contextmanager
def started(options: Sequence[str]) -> Iterator[Server]:
    """A server of its own, ended with the block.

    Raises:
        RuntimeError: it ended before it was ready; its words are on stderr.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dl_techniques", "serve", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--log-dir", folder, *options], stderr=subprocess.PIPE, text=True
        )
        try:
            address = _await_ready(process)
            yield Server(address, process.pid, time.perf_counter() - begun)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def _await_ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        found = re.search(r"(http://\S+)/v1", line)
        address = found[1] if found else address
        if "ready:" in line and address:
            _drain(process)
            return address
        if found is None and "INFO" not in line:
            sys.stderr.write(line)
    raise RuntimeError("the server ended before it was ready")


def _drain(process: subprocess.Popen[str]) -> None:
    """Reads on in a thread: a full pipe would stop the server."""
    import threading

    assert process.stderr is not None
    stderr = process.stderr
    threading.Thread(target=lambda: [None for _ in stderr], daemon=True).start()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    """Memory that a process holds (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def row(clients: int, seen: Seen, cpu: float) -> tuple[str, ...]:
    """A line of the table."""
    answered = max(1, len(seen.seconds))
    numbers = (
        len(seen.seconds) / seen.elapsed,
        seen.tokens / seen.elapsed,
        seen.percentile(50),
        seen.percentile(99),
        1000 * max(seen.seconds, default=0.0),
        1000 * cpu / answered,
    )
    failed = ",".join(f"{n} x {status}" for status, n in seen.failed.items()) or "0"
    return (str(clients), *(f"{number:.1f}" for number in numbers), failed)


def rates(server: Server, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """One line for each number of clients."""
    make = mixed_bodies if options.mixed else bodies
    requests = make(options.side, options.tokens)
    for clients in options.clients:
        until = time.perf_counter() + options.seconds
        before = cpu_seconds(server.pid)
        asked = load(
            server.address,
            requests,
            clients,
            lambda _, until=until: time.perf_counter() < until,  # type: ignore[misc]
        )
        seen = asyncio.run(asked)
        yield row(clients, seen, cpu_seconds(server.pid) - before)


def memory(server: Server, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Memory after a tenth of the requests, and after all."""
    requests = bodies(options.side, options.tokens)
    for number in (options.requests // 10, options.requests - options.requests // 10):
        asked = load(
            server.address,
            requests,
            options.clients[-1],
            lambda begun, most=number: begun < most,  # type: ignore[misc]
        )
        seen = asyncio.run(asked)
        yield (str(len(seen.seconds)), f"{resident_megabytes(server.pid):.1f}")


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and those that are for the server."""
    parser = argparse.ArgumentParser(prog="load_server", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each number of clients")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer at most")
    parser.add_argument("--side", type=int, default=320, help="of a frame, in pixels")
    parser.add_argument("--mixed", action="store_true", help="random lengths, limits, pictures")
    parser.add_argument("--requests", type=int, help="memory after so many, instead of rates")
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints a table in Markdown."""
    options, others = parse(argv)
    with started(others) as server:
        print(f"ready after {server.ready_seconds:.1f} s; load {os.getloadavg()[0]:.1f}\n")
        header = HEADER if options.requests is None else ("requests", "MB")
        lines = rates if options.requests is None else memory
        print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
        for cells in lines(server, options):
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
