"""`fastvlm convert SOURCE DEST`: other people's weights as a preset of ours, and back."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.progress import Progress
from dl_techniques.errors import CheckpointError, PresetError

if TYPE_CHECKING:
    from dl_techniques.loading.contents import Contents

PRECISIONS = ("float32", "bfloat16")
MEGABYTE = 1_000_000
SMALL_FILES = 20 * MEGABYTE  # configs and tokenizer


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="turn checkpoints of timm, Apple or Hugging Face into presets, and back",
        description=(
            "Reads a checkpoint (a folder, a weight file or hf://organisation/name) and writes it "
            "as a preset of this package or in the layout that transformers or timm open. An "
            "interrupted conversion to transformers goes on where it was when it is called again."
        ),
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder, a weight file, hf://organisation/name"
    )
    parser.add_argument("dest", metavar="DEST", nargs="?", type=Path, help="a new folder")
    parser.add_argument("--to", choices=("keras", "transformers"), default="keras", help="layout")
    parser.add_argument("--variant", help="the network that a bare weight file must hold")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: what is stored")
    parser.add_argument("--dry-run", action="store_true", help="say what it is and stop")
    parser.add_argument("--force", action="store_true", help="replace DEST if it exists")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Says what the source is, then converts it."""
    from dl_techniques.loading.contents import check_processing

    if options.dest is None and not options.dry_run:
        raise PresetError("DEST is missing: name the folder to write, or give --dry-run")
    if options.dest is not None:
        check_target(options.dest, options.force)
    inside = find_contents(options.source)
    check_processing(inside)
    precision = options.precision or inside.precision
    show(inside, precision, options.json)
    if options.dry_run:
        return 0
    check_space(options.dest, inside.written_bytes(precision) + SMALL_FILES)
    try:
        convert(inside, precision, options)
    except OSError as error:
        raise CheckpointError(
            f"{options.dest}: cannot be written ({error.strerror or error}); make room or choose "
            "another place, and call the command again"
        ) from error
    if not options.json:
        print(f"wrote {options.dest}")
    return 0


def find_contents(source: str) -> Contents:
    """What a source holds.

    Raises:
        PresetError: nothing there, or nothing that can be converted.
    """
    from dl_techniques.loading.source import find

    found = find(source, look_through=True)
    if found.contents is None:
        raise PresetError(
            f"{source} is of the kind {found.kind!r}, which cannot be converted; expected a "
            "preset, a checkpoint or a weight file"
        )
    return found.contents


def check_target(dest: Path, force: bool) -> None:
    """Refuses to write over something that was not asked to be replaced.

    Raises:
        PresetError: DEST is there, or its parent is not.
    """
    if dest.exists() and not dest.is_dir():
        raise PresetError(f"{dest} is a file; give a folder")
    if dest.exists() and not force:
        raise PresetError(f"{dest} exists already; give another folder, or --force to replace it")
    if not dest.absolute().parent.is_dir():
        raise PresetError(f"{dest.absolute().parent} is no folder; make it first")


def check_space(dest: Path, needed: int) -> None:
    """Refuses to begin what cannot end.

    Raises:
        CheckpointError: the disk has less room than the files will take.
    """
    free = shutil.disk_usage(dest.absolute().parent).free
    if free < needed:
        raise CheckpointError(
            f"{dest}: the files take up to {needed // MEGABYTE} MB and the disk has "
            f"{free // MEGABYTE} MB left; make room or choose another disk"
        )


def convert(inside: Contents, precision: str, options: argparse.Namespace) -> None:
    """Loads the model and writes it beside DEST; a folder named DEST is whole."""
    from dl_techniques.checkpoints.folders import replacing_folder

    to_transformers = options.to == "transformers"
    shards = to_transformers and inside.model == "FastVLMCausalLM"
    stamp = stamp_of(inside, precision) if shards else None
    steps = inside.stored_bytes + (inside.written_bytes(precision) if shards else 0)
    with Progress("MB", steps // MEGABYTE) as bar:
        told = in_megabytes(bar)
        model = load(inside, precision, options.variant, told)
        with replacing_folder(options.dest, stamp) as partial:
            if shards:
                model.export_to_transformers(partial, progress=told, resume=True)
            elif to_transformers:
                model.export_to_transformers(partial)
            else:
                model.save_to_preset(partial)


def in_megabytes(bar: Progress) -> Callable[[int], None]:
    """Takes counts of bytes and moves a bar of megabytes."""
    total = 0

    def told(count: int) -> None:
        nonlocal total
        total += count
        bar.advance(total // MEGABYTE - bar.done)

    return told


def stamp_of(inside: Contents, precision: str) -> str:
    """Changes when the source or the target does: an old partial folder is of no use then."""
    path = Path(inside.path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return json.dumps([str(path.resolve()), precision, stats])


def load(
    inside: Contents, precision: str, variant: str | None, progress: Callable[[int], None]
) -> Any:
    """The model, in the precision that was asked for."""
    import dl_techniques

    keywords: dict[str, Any] = {"dtype": precision}
    if variant is not None:
        keywords["variant"] = variant
    if inside.model == "FastVLMCausalLM" and inside.layout != "keras":
        keywords["progress"] = progress
    return getattr(dl_techniques, inside.model).from_preset(inside.path, **keywords)


def show(inside: Contents, precision: str, as_json: bool) -> None:
    """Prints what the source is and what loading it takes."""
    peak = inside.peak_bytes[precision]
    written = inside.written_bytes(precision)
    if as_json:
        facts = {**asdict(inside), "written_precision": precision, "written_bytes": written}
        print(json.dumps(facts), flush=True)
        return
    lines = [
        ("what", inside.what),
        ("layout", inside.layout),
        ("tensors", str(inside.tensors)),
        ("numbers", f"{inside.parameters:,}"),
        ("on disk", f"{inside.stored_bytes / MEGABYTE:.1f} MB"),
        ("precision", f"{precision} (stored: {inside.precision})"),
        ("memory while loading", f"at most {peak / MEGABYTE:.1f} MB beside the programs"),
        ("weights to be written", f"at most {written / MEGABYTE:.1f} MB"),
    ]
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in lines), flush=True)
