"""Times all files of a work folder again, in turns, on a quiet machine.

The files take turns, round after round, so that a slow minute meets all of them alike.

Example:
    python -m recipes.cifar10.latency --work WORK
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from dl_techniques.compression.optimization.measure import LiteRTClassifier
from recipes.cifar10 import results


def main() -> None:
    """Measures, and writes the times into the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=50, help="pictures a file and round")
    options = parser.parse_args()
    found = results.read_all(options.work)
    runners = [LiteRTClassifier(options.work / result.file) for result in found]
    times: list[list[float]] = [[] for _ in found]
    for _ in range(options.rounds):
        for runner, own in zip(runners, times, strict=True):
            own.append(runner.milliseconds(options.repeats))
    for result, own in zip(found, times, strict=True):
        results.write(options.work, results.with_time(result, statistics.median(own)))
        print(f"{result.name}: {statistics.median(own):.3f} ms", flush=True)


if __name__ == "__main__":
    main()
