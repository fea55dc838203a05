"""`fastvlm benchmark`: how long a user waits, on this machine, from a cold start and after it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dl_techniques.cli import session
from dl_techniques.cli.describe import QUESTION
from dl_techniques.cli.options import DEFAULT_PRESET, MAX_PIXELS, positive_int
from dl_techniques.cli.progress import Progress

THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "XLA_FLAGS")
SIZE = (480, 640, 3)  # of the picture that is made where none is given


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "benchmark",
        help="time the model on this machine",
        description="Time from Enter to the first token, phases of a warm answer, peak memory.",
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="default: a generated picture")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="a shipped preset or a folder")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N")
    parser.add_argument("--max-new-tokens", type=positive_int, default=32, metavar="N")
    parser.add_argument("--no-cold", action="store_true", help="skip the runs from a cold start")
    parser.add_argument("--no-fuse", action="store_true", help="warm runs on the branched encoder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def made_picture() -> Any:
    """A picture of noise, the same on every machine: uint8[480, 640, 3]."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, SIZE, dtype="uint8")


def cold(options: argparse.Namespace, picture: Any) -> dict[str, Any]:
    """The first and the next run of `fastvlm describe`, each in a new process."""
    from PIL import Image

    from dl_techniques.evaluation.speed import cold_starts

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        Image.fromarray(picture).save(path)
        command = [sys.executable, "-m", "dl_techniques", "ask", str(path), options.question]
        command += ["--preset", options.preset]
        command += ["--max-new-tokens", str(options.max_new_tokens)]
        return {name: asdict(times) for name, times in cold_starts(command).items()}


def warm(options: argparse.Namespace, picture: Any) -> dict[str, Any]:
    """Phases of an answer in this process, its peak memory and what the model is."""
    from dl_techniques.evaluation.speed import measure_warm, own_peak_megabytes

    model = session.load_model(options.preset, fuse=not options.no_fuse)
    model.compile(sampler="greedy")
    inputs = {"prompts": options.question, "images": [picture]}
    with Progress("answers", options.repeats) as bar:
        times = measure_warm(model, inputs, options.max_new_tokens, options.repeats, bar.advance)
    return {
        "times": asdict(times),
        "peak_megabytes": own_peak_megabytes(),
        "model": describe_model(model),
    }


def describe_model(model: Any) -> dict[str, Any]:
    """What was measured: size, precision, and whether the encoder is fused."""
    backbone = model.backbone
    return {
        "parameters": backbone.count_params(),
        "image_size": list(backbone.image_size),
        "image_tokens": backbone.num_image_tokens,
        "encoder_precision": backbone.vision_encoder.dtype_policy.name,
        "decoder_precision": backbone.text_backbone.dtype_policy.name,
        "fused": model.reparameterized,
    }


def rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the table: a name and a figure with its unit."""
    lines = []
    for name, run_times in report.get("cold", {}).items():
        first, memory = run_times["first_text_seconds"], run_times["peak_megabytes"]
        lines.append((f"{name}: Enter to the first text", f"{first:.2f} s"))
        lines.append((f"{name}: peak memory", f"{memory:.0f} MB"))
    times = report["warm"]["times"]
    for name in ("preprocess", "encode", "prefill", "first_decode", "first_token"):
        lines.append((f"warm: {name.replace('_', ' ')}", f"{1000 * times[name]:.1f} ms"))
    rate = times["tokens_per_second"]
    lines.append(("warm: decoding", "-" if rate is None else f"{rate:.1f} tokens/s"))
    lines.append(("warm: tokens of the answer", str(times["tokens"])))
    lines.append(("warm: peak memory", f"{report['warm']['peak_megabytes']:.0f} MB"))
    return lines


def to_text(report: dict[str, Any]) -> str:
    """The report for a person: the table, then what it was measured on."""
    lines = rows(report)
    width = max(len(name) for name, _ in lines)
    table = [f"{name.ljust(width)}  {figure:>16}" for name, figure in lines]
    for part in ("machine", "model"):
        fields = report["warm"]["model"] if part == "model" else report["machine"]
        table.append(f"{part}: " + ", ".join(f"{k} {v}" for k, v in fields.items()))
    return "\n".join(table)


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    from dl_techniques.evaluation.report import machine

    if options.image is None:
        picture = made_picture()
    else:
        (picture,) = session.read_pictures([options.image], MAX_PIXELS)
    report: dict[str, Any] = {"preset": options.preset}
    if not options.no_cold:
        report["cold"] = cold(options, picture)
    report["warm"] = warm(options, picture)
    threads = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    report["machine"] = {**machine(), "threads": threads or "library default"}
    print(json.dumps(report, indent=2) if options.json else to_text(report), flush=True)
    return 0
