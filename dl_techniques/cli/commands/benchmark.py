"""`fastvlm benchmark`: how long a user waits, on this machine, from a cold start and after it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dl_techniques.cli import session
from dl_techniques.cli.commands.benchmark_table import to_text
from dl_techniques.cli.commands.describe import QUESTION
from dl_techniques.cli.options import (
    MAX_PIXELS,
    add_preset_option,
    add_server_option,
    positive_int,
    question,
)
from dl_techniques.cli.progress import Progress
from dl_techniques.errors import DLTechniquesError
from dl_techniques.runtime.memory import keep_freed_memory

if TYPE_CHECKING:
    import keras

SIZE = (480, 640, 3)  # of the picture that is made where none is given
TURNS = ("What else is there?", "What colours are there?", "Is anything moving?")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "benchmark",
        help="time the model on this machine",
        description="Time from Enter to the first token, phases of a warm answer, questions that "
        "follow, peak memory; with --resolutions or --network also the encoder in its three forms.",
    )
    parser.add_argument(
        "image", nargs="?", metavar="IMAGE", help="- is stdin; default: a generated picture"
    )
    add_preset_option(parser)
    add_server_option(parser)
    parser.add_argument("--question", type=question, default=QUESTION, help="asked every time")
    parser.add_argument(
        "--repeats", type=positive_int, default=5, metavar="N", help="runs of each kind"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive_int, default=32, metavar="N", help="longest answer"
    )
    parser.add_argument("--no-cold", action="store_true", help="skip the runs from a cold start")
    parser.add_argument("--no-fuse", action="store_true", help="warm runs on the branched encoder")
    parser.add_argument(
        "--keep-freed-memory",
        action="store_true",
        help="measure with dl_techniques.keep_freed_memory()",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_encoder_options(parser)
    parser.set_defaults(run=run)


def _add_encoder_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the encoder alone: branched, fused and folded")
    group.add_argument(
        "--network",
        metavar="NAME",
        help="a vision network by name with random weights, instead of a preset (fastvithd, base)",
    )
    group.add_argument("--dtype", metavar="POLICY", help="with --network, e.g. bfloat16")
    group.add_argument(
        "--resolutions", type=positive_int, nargs="+", metavar="PIXELS", help="sides"
    )
    group.add_argument(
        "--batch-sizes", type=positive_int, nargs="+", metavar="N", default=[1], help="pictures"
    )
    group.add_argument("--plot", metavar="FILE", help="latency against resolution (png, svg, pdf)")


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


def warm(options: argparse.Namespace, model: keras.Model, picture: Any) -> dict[str, Any]:
    """Phases of an answer in this process, a conversation, peak memory and what the model is."""
    from dl_techniques.evaluation.speed import own_peak_megabytes
    from dl_techniques.evaluation.speed_answers import measure_warm

    model.compile(sampler="greedy")
    inputs = {"prompts": options.question, "images": [picture]}
    with Progress("answers", options.repeats) as bar:
        times = measure_warm(model, inputs, options.max_new_tokens, options.repeats, bar.advance)
    return {
        "times": asdict(times),
        "conversation": conversation(options, model, picture),
        "peak_megabytes": own_peak_megabytes(),
        "model": describe_model(model),
    }


def of_server(options: argparse.Namespace) -> dict[str, Any]:
    """What a client of a server waits for: middle values of the runs after the first.

    The server has cost of its own; what it computes on is not known here.
    """
    from dl_techniques.hosts.server import ServerAnswerer

    picture = made_picture() if options.image is None else options.image
    server = ServerAnswerer(options.server)
    timings = []
    with Progress("answers", options.repeats) as bar:
        for turn in range(options.repeats + 1):
            stream = server.stream(options.question, [picture], options.max_new_tokens)
            timing = session.show(stream, visible=False)
            if turn:  # before the first the server has not seen the picture
                timings.append(timing)
                bar.advance(1)
    first = [t.first_token_seconds for t in timings if t.first_token_seconds is not None]
    rates = [t.tokens_per_second for t in timings if t.tokens_per_second is not None]
    return {
        "server": options.server,
        "answers": len(timings),
        "tokens": median(t.tokens or 0 for t in timings),
        "first_token_seconds": median(first) if first else None,
        "seconds": median(t.seconds for t in timings),
        "tokens_per_second": median(rates) if rates else None,
    }


def conversation(options: argparse.Namespace, model: keras.Model, picture: Any) -> dict[str, Any]:
    """Several questions about one picture: what those after the first one cost."""
    from dl_techniques.evaluation.speed_answers import (
        measure_turns,
        middle_turns,
        second_over_first,
    )

    questions = (options.question, *TURNS)
    talks = []
    with Progress("conversations", options.repeats) as bar:
        for turn in range(options.repeats + 1):
            talk = measure_turns(model, picture, questions, options.max_new_tokens)
            if turn:  # the first compiles
                talks.append(talk)
                bar.advance(1)
    turns = middle_turns(talks)
    ratio = second_over_first(turns)
    return {"second_over_first": ratio, "turns": [asdict(turn) for turn in turns]}


def describe_model(model: keras.Model) -> dict[str, Any]:
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


def encoder(options: argparse.Namespace, network: keras.Model) -> dict[str, Any]:
    """The encoder's forms at every resolution and batch size, their growth, and the plot."""
    from dl_techniques.evaluation import speed_encoder
    from dl_techniques.evaluation.speed import own_peak_megabytes

    sizes = options.resolutions or [network.preprocessing.size]
    make = speed_encoder.forms_of(network)
    runs = speed_encoder.runs_of(sizes, options.batch_sizes, options.repeats)
    with Progress("encoder", runs) as bar:
        times = speed_encoder.encoder_times(
            make, sizes, options.batch_sizes, options.repeats, on_run=bar.advance
        )
    if options.plot:
        draw(options, network, times)
    return {
        "network": network.name,
        "precision": network.dtype_policy.name,
        "times": [asdict(cell) for cell in times],
        "growth": [
            {"form": form, "batch_size": batch, "exponent": exponent}
            for (form, batch), exponent in speed_encoder.growth(times).items()
        ],
        "peak_megabytes": own_peak_megabytes(),
    }


def draw(options: argparse.Namespace, network: keras.Model, times: Any) -> None:
    """Writes the plot, with what was measured and where in its title."""
    from dl_techniques.evaluation.report import machine
    from dl_techniques.evaluation.speed_plot import plot_encoder_times

    facts = machine()
    title = f"{network.name}, {facts['backend']}, {network.dtype_policy.name}\n"
    plot_encoder_times(times, options.plot, title + f"{facts['processor']}, {facts['cores']} cores")


def check(options: argparse.Namespace) -> None:
    """Finds out before anything is loaded what the options cannot mean.

    Raises:
        DLTechniquesError: an option without the one that it belongs to, or a plot that cannot be
            written.
    """
    if options.dtype and not options.network:
        raise DLTechniquesError("--dtype is for --network; a preset has its own precision")
    if options.plot:
        from dl_techniques.evaluation.speed_plot import check_plot

        if not (options.network or options.resolutions):
            raise DLTechniquesError("--plot shows the encoder: add --resolutions 256 512 1024")
        check_plot(options.plot)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the options ask for."""
    if options.network:
        from dl_techniques import FastVLM

        named = FastVLM.from_variant(options.network, include_top=False, dtype=options.dtype)
        return {"encoder": encoder(options, named)}
    if options.image is None:
        picture = made_picture()
    else:
        (picture,) = session.read_pictures([options.image], MAX_PIXELS)
    report: dict[str, Any] = {"preset": options.preset}
    if not options.no_cold:
        report["cold"] = cold(options, picture)
    model = session.load_model(options.preset, fuse=not options.no_fuse)
    report["warm"] = warm(options, model, picture)
    if options.resolutions:
        report["encoder"] = encoder(options, model.backbone.vision_encoder)
    return report


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    check(options)
    if options.server is not None:
        report = of_server(options)
        lines = (f"{name}: {value}" for name, value in report.items())
        print(json.dumps(report, indent=2) if options.json else "\n".join(lines), flush=True)
        return 0
    from dl_techniques.evaluation.report import machine
    from dl_techniques.evaluation.speed import thread_settings

    kept = options.keep_freed_memory and keep_freed_memory()
    report = measure(options)
    report["machine"] = {
        **machine(),
        "threads": thread_settings() or "library default",
        "freed_memory": "kept" if kept else "given back",
    }
    print(json.dumps(report, indent=2) if options.json else to_text(report), flush=True)
    return 0
